// What the sidebar does beside htmx: opens evidence and gives the focus back, follows a summary that is being
// written, asks the EHR to open a record, and says what failed. Text is set as text, never as markup.
"use strict";
(() => {
  const main = document.getElementById("content");
  const evidence = document.getElementById("evidence");
  const heard = document.getElementById("heard");
  const visit = main.dataset.visit;
  const SILENCE_MS = 30_000;
  const ANSWER_MS = 3_000;
  const STAGES = {
    queued: "Waiting for its turn", fetch: "Reading the chart", assemble: "Putting the chart in order",
    choose: "Choosing what to tell", digest: "Reading what does not fit", generate: "Writing",
    verify: "Checking every sentence against its source", publish: "Keeping it",
  };
  let opener = null;
  let source = null;

  const say = (text) => { heard.textContent = text; };

  function element(name, text, className) {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // Nothing lies over the banner, however many lines it has (PAB-0009).
  function measure() {
    const { offsetHeight } = document.querySelector(".banner") || { offsetHeight: 0 };
    document.documentElement.style.setProperty("--banner-height", `${offsetHeight}px`);
  }

  // Evidence

  function setExpanded(chip, isOpen) {
    if (chip && chip.isConnected) chip.setAttribute("aria-expanded", String(isOpen));
  }

  function openEvidence(chip) {
    setExpanded(opener, false);
    opener = chip;
    setExpanded(chip, true);
    evidence.hidden = false;
    evidence.replaceChildren(element("p", "Reading the source …", "waiting"));
  }

  function showEvidence() {
    evidence.hidden = false;
    evidence.scrollTop = 0;
    evidence.focus({ preventScroll: true });
    const statement = opener && opener.closest(".statement");
    const isBelow = getComputedStyle(evidence).left === "0px";
    if (statement && isBelow) statement.scrollIntoView({ block: "start" });
  }

  function closeEvidence() {
    if (evidence.hidden) return;
    evidence.hidden = true;
    evidence.replaceChildren();
    setExpanded(opener, false);
    const target = opener && opener.isConnected ? opener : main;
    opener = null;
    target.focus();
  }

  // A summary that is being written

  function stopFollowing() {
    if (source) source.close();
    source = null;
  }

  function follow(box) {
    stopFollowing();
    const stage = box.querySelector(".stage");
    const list = box.querySelector(".provisional");
    const lists = new Map();
    let timer = 0;
    const stream = new EventSource(box.dataset.stream);
    source = stream;

    function alive() {
      clearTimeout(timer);
      timer = setTimeout(() => failed("Nothing was heard for 30 seconds."), SILENCE_MS);
    }

    function ended() {
      clearTimeout(timer);
      stream.close();
      if (source === stream) source = null;
    }

    function failed(why) {
      ended();
      box.classList.add("failed");
      list.removeAttribute("aria-busy");
      const again = element("button", "Try again", "button");
      again.type = "button";
      again.addEventListener("click", () => { box.classList.remove("failed"); again.remove(); follow(box); });
      stage.textContent = `FAILED: ${why} The chart is not affected.`;
      stage.after(again);
      say(stage.textContent);
    }

    function on(name, act) {
      stream.addEventListener(name, (event) => {
        if (source !== stream) return;
        alive();
        act(JSON.parse(event.data));
      });
    }

    on("beat", () => {});
    on("stage", (told) => { stage.textContent = `${STAGES[told.stage] || told.stage} …`; });
    on("claim", (told) => {
      if (!lists.has(told.section)) {
        const made = element("ul", "");
        list.append(element("h3", told.section), made);
        lists.set(told.section, made);
      }
      const line = element("li", `${told.text} `);
      line.append(element("span", "being checked", "mark"));
      lists.get(told.section).append(line);
    });
    on("done", () => {
      ended();
      htmx.ajax("GET", box.dataset.summary, { target: "#summary", swap: "innerHTML" });
      say("The summary is written and checked.");
    });
    on("failed", (told) => failed(told.text || "The summary could not be made."));
    on("cancelled", () => {
      ended();
      stage.textContent = "Stopped. Nothing was kept.";
      list.replaceChildren();
      say(stage.textContent);
    });
    stream.addEventListener("error", () => {
      // A browser tries again by itself, from the last event on; one that was refused is closed.
      if (stream.readyState === EventSource.CLOSED) failed("The connection was refused.");
    });
    alive();
  }

  // SMART Web Messaging 1.0: ui.launchActivity

  function openInChart(button) {
    const { handle, origin } = main.dataset;
    const told = button.parentElement.querySelector(".opened");
    const messageId = crypto.randomUUID();
    const timer = setTimeout(() => { done("The EHR did not answer."); }, ANSWER_MS);

    function done(text) {
      clearTimeout(timer);
      window.removeEventListener("message", answered);
      told.textContent = text;
    }

    function answered(event) {
      if (event.origin !== origin || event.source !== host) return;
      const said = event.data;
      if (!said || said.responseToMessageId !== messageId) return;
      const payload = said.payload || {};
      const refused = payload.success === false || ["error", "failure"].includes(payload.status);
      done(refused ? "The EHR did not open it." : "Opened in the chart.");
    }

    const host = window.opener || window.parent;
    window.addEventListener("message", answered);
    host.postMessage(
      {
        messagingHandle: handle, messageId, messageType: "ui.launchActivity",
        payload: {
          activityType: button.dataset.activity,
          activityParameters: { [button.dataset.parameter]: button.dataset.reference },
        },
      },
      origin,
    );
  }

  // What htmx asks for, and what fails

  function isOver() {
    stopFollowing();
    closeEvidence();
    const text = "Your session with the EHR is over. Open Epicrisis again from the patient's chart.";
    const notice = element("p", text, "incomplete");
    document.querySelector(".banner").remove();
    main.replaceChildren(element("h1", "Session over"), notice);
    main.focus();
    say(text);
  }

  function fail(target, text) {
    if (!target || target === document.body) { say(text); return; }
    const notice = element("p", `FAILED: ${text} The chart is not affected.`, "trouble");
    if (target.id === "live" || target.id === "freshness") target.removeAttribute("aria-busy");
    const waiting = target.querySelector(":scope > .waiting");
    if (waiting) waiting.replaceWith(notice); else target.prepend(notice);
    say(notice.textContent);
  }

  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-Epicrisis-Visit"] = visit;
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.matches(".chip")) openEvidence(event.detail.elt);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const { target } = event.detail;
    if (target === evidence) showEvidence();
    const box = target.querySelector("#generation[data-stream]");
    if (box) follow(box);
    if (target.id === "making") {
      const title = target.querySelector("h2");
      if (title) say(title.textContent);
    }
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.elt && event.detail.elt.id === "live") say("The live strip was read.");
  });
  document.addEventListener("htmx:responseError", (event) => {
    const { xhr, target } = event.detail;
    if (xhr.status === 401) { isOver(); return; }
    fail(target, `This could not be shown (${xhr.status}).`);
  });
  for (const name of ["htmx:sendError", "htmx:timeout", "htmx:swapError"]) {
    document.addEventListener(name, (event) => fail(event.detail.target, "Epicrisis could not be reached."));
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.matches(".close")) closeEvidence();
    if (button.matches(".open-in-chart")) openInChart(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.altKey || event.ctrlKey || event.metaKey) return;
    if (!evidence.hidden) { event.preventDefault(); closeEvidence(); }
  });

  // Copied text keeps its label, and says which source each number stands for.
  document.addEventListener("copy", (event) => {
    const selection = document.getSelection();
    const summary = document.getElementById("summary");
    if (!selection || selection.isCollapsed || !summary || !selection.containsNode(summary, true)) return;
    const label = summary.querySelector(".label strong");
    const cited = [...summary.querySelectorAll(".chip")].filter((chip) => selection.containsNode(chip, true));
    const lines = cited.map((chip) => `[${chip.textContent.replace(/\D/g, "")}] ${chip.getAttribute("aria-label")}`);
    const text = [label ? label.textContent : "", selection.toString(), ...new Set(lines)];
    event.clipboardData.setData("text/plain", text.join("\n"));
    event.preventDefault();
  });

  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.more")) details.open = true;
  });
  window.addEventListener("pagehide", stopFollowing);
  window.addEventListener("resize", measure);
  measure();
})();
