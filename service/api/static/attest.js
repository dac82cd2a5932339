// Attesting with a keyboard: j and k go from item to item, a, e and r decide, u takes the last one back.
// Every act is a plain form and works without this file.
"use strict";
(() => {
  const items = [...document.querySelectorAll(".item")];
  const keys = document.querySelector(".keys");
  if (!items.length) return;
  if (keys) keys.hidden = false;

  const here = () => document.activeElement?.closest(".item");

  function go(step) {
    const at = items.indexOf(here());
    const next = items[at < 0 ? 0 : Math.min(items.length - 1, Math.max(0, at + step))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  function unfold(item, kind) {
    const details = item.querySelector(`details.${kind}`);
    if (!details) return;
    details.open = true;
    const field = details.querySelector("textarea, input:not([type=hidden])");
    field.focus();
    if (field instanceof HTMLTextAreaElement) field.setSelectionRange(field.value.length, field.value.length);
  }

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const field = event.target.closest("textarea, input, select");
    const item = here();
    if (event.key === "Escape" && item) {
      for (const details of item.querySelectorAll(".buttons details")) details.open = false;
      item.focus();
      return;
    }
    if (field) return;
    if (event.key === "j") go(1);
    else if (event.key === "k") go(-1);
    else if (event.key === "u") document.querySelector("form.undo button")?.click();
    else if (!item) return;
    else if (event.key === "a") item.querySelector("button.accept")?.click();
    else if (event.key === "e") unfold(item, "edit");
    else if (event.key === "r") unfold(item, "reject");
    else return;
    event.preventDefault();
  });

  const named = items.find((one) => `#${one.id}` === location.hash);
  if (named) named.focus();
})();
