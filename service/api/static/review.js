// The console with a keyboard. Every act is a plain form and works without this file.
"use strict";
(() => {
  const list = document.querySelector(".items");
  if (!list) return;

  const items = () => [...list.querySelectorAll(".item")];
  const here = () => document.activeElement.closest(".item");
  const isOpen = () => document.getElementById("undo") !== null;

  function focus(item) {
    if (!item) return;
    item.focus({ preventScroll: true });
    item.scrollIntoView({ block: "start" });
  }

  function move(step) {
    const all = items();
    const at = here();
    focus(at ? all[all.indexOf(at) + step] : all[step > 0 ? 0 : all.length - 1]);
  }

  function nextOf(item) {
    const all = items();
    return all.slice(all.indexOf(item) + 1).find((one) => !one.classList.contains("scored"));
  }

  // One statement is put in place anew, with the count of those that are scored. The next one has the focus
  // by then: whoever reads on does not wait for the answer. Answers come in the order of the acts.
  let sent = Promise.resolve();

  async function send(form, button, body) {
    const answer = await fetch(form.action, { method: "POST", body, headers: { "HX-Request": "true" } }).catch(() => null);
    if (!answer || !answer.ok) {
      form.dataset.plain = "yes"; // the page that comes back says what is wrong
      form.requestSubmit(button);
      return;
    }
    const fresh = document.createElement("template");
    fresh.innerHTML = await answer.text();
    document.getElementById("progress").replaceWith(fresh.content.querySelector("#progress"));
    const shown = fresh.content.querySelector(".item");
    const item = document.getElementById(shown.id);
    const hadFocus = item.contains(document.activeElement);
    const words = item.querySelector(".score textarea");
    if (words) shown.querySelector(".score textarea").value = words.value; // what is not sent yet stays
    item.replaceWith(shown);
    if (hadFocus) focus(shown);
  }

  list.addEventListener("submit", (event) => {
    const form = event.target;
    const button = event.submitter;
    if (!form.closest(".item") || form.dataset.plain || form.action.includes("/disputes/")) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, button));
    if (form.matches(".score")) focus(nextOf(form.closest(".item")));
    sent = sent.then(() => send(form, button, body));
  });

  function press(button) {
    if (button) button.click();
  }

  function act(key, item) {
    if (key === "e") {
      item.querySelector(".score textarea").focus();
    } else if (key === "d") {
      const dispute = item.querySelector(".dispute");
      if (!dispute) return;
      dispute.open = true;
      dispute.querySelector("textarea").focus();
    } else {
      press(item.querySelector(`.choice[data-key="${key}"]`));
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const field = event.target.closest("textarea, input, select");
    if (event.key === "Escape" && field && here()) {
      focus(here());
      return;
    }
    if (field) return;
    const key = event.key;
    if (key === "j" || key === "k") {
      move(key === "j" ? 1 : -1);
    } else if (key === "u" && isOpen()) {
      press(document.querySelector("#undo button"));
    } else if (key === "?" && isOpen()) {
      const keys = document.getElementById("keys");
      keys.open = !keys.open;
      keys.querySelector("summary").focus();
    } else if ("arned".includes(key) && key.length === 1 && isOpen() && here()) {
      act(key, here());
    } else {
      return;
    }
    event.preventDefault();
  });

  const named = location.hash && document.querySelector(`.item${location.hash.match(/^#item-\d+$/) || ":not(*)"}`);
  if (named) focus(named);
})();
