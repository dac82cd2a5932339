// Opens a source where the reader is, and gives the focus back. Every source can be read without this file.
"use strict";
(() => {
  const panel = document.querySelector(".sources");
  const text = document.querySelector(".text");
  if (!panel || !text) return;

  const label = document.querySelector(".label strong").textContent;
  const cards = [...panel.querySelectorAll(".source")];
  let open = null;
  let opener = null;

  const chipsOf = (card) => document.querySelectorAll(`.chip[href="#${card.id}"]`);

  function setExpanded(card, isOpen) {
    for (const chip of chipsOf(card)) chip.setAttribute("aria-expanded", String(isOpen));
  }

  function unfold(element) {
    for (let at = element.parentElement; at; at = at.parentElement) {
      if (at instanceof HTMLDetailsElement) at.open = true;
    }
  }

  function openSource(card, from) {
    if (open) closeSource(false);
    unfold(card);
    const note = card.querySelector("details.note");
    if (note) note.open = true;
    card.classList.add("open");
    setExpanded(card, true);
    open = card;
    opener = from || chipsOf(card)[0] || null;
    card.focus({ preventScroll: true });
    card.scrollTop = 0;
    if (getComputedStyle(card).position !== "fixed") {
      card.scrollIntoView({ block: "start" });
    } else if (opener) {
      unfold(opener);
      opener.closest(".statement").scrollIntoView({ block: "start" });
    }
  }

  function closeSource(giveBack) {
    const card = open;
    if (!card) return;
    card.classList.remove("open");
    setExpanded(card, false);
    open = null;
    if (!giveBack) return;
    const target = opener || panel;
    unfold(target);
    target.focus();
  }

  function openFromAddress() {
    const card = cards.find((one) => `#${one.id}` === location.hash);
    if (card) openSource(card, null);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a, button");
    if (!link) return;
    if (link.matches(".close")) {
      closeSource(true);
    } else if (link.matches(".chip") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      openSource(document.getElementById(link.hash.slice(1)), link);
    } else if (link.matches('.back a[href^="#"]')) {
      closeSource(false);
    }
  });

  document.addEventListener("keydown", (event) => {
    if (!open || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") {
      event.preventDefault();
      closeSource(true);
    } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const next = cards[cards.indexOf(open) + (event.key === "ArrowRight" ? 1 : -1)];
      if (!next) return;
      event.preventDefault();
      openSource(next, null);
    }
  });

  // Copied text keeps its label, and says which resource each number stands for.
  text.addEventListener("copy", (event) => {
    const selection = document.getSelection();
    if (!selection || selection.isCollapsed) return;
    const cited = [...text.querySelectorAll(".chip")].filter((chip) => selection.containsNode(chip, true));
    const lines = cited.map((chip) => {
      const card = document.getElementById(chip.hash.slice(1));
      return `[${card.id.slice("source-".length)}] ${card.querySelector(".reference bdi").textContent}`;
    });
    event.clipboardData.setData("text/plain", [label, selection.toString(), ...new Set(lines)].join("\n"));
    event.preventDefault();
  });

  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  window.addEventListener("hashchange", openFromAddress);
  for (const card of cards) setExpanded(card, false);
  openFromAddress();
})();
