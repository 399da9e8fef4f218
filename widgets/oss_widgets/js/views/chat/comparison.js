/**
 * The same question at three efforts, side by side.
 */

import { make, refill } from "../elements.js";
import { describeStop } from "../run_names.js";
import { countTokens, describeSeconds } from "./run_text.js";

/** @param {import("./session.js").Session} session */
export function makeComparison(session) {
  const list = make("div", { class: "oss-chat-cards" });
  const element = make(
    "section", { class: "oss-chat-comparison", "aria-label": "Efforts compared" },
    make("h4", {}, "Efforts compared"), list,
  ); // prettier-ignore
  let cards = [];
  element.hidden = true;

  /** @param {object[]} requests  one for each effort */
  function compare(requests) {
    return session.start(async (signal) => {
      cards = [];
      for (const request of requests) cards.push(makeCard(session, await session.source.ask(request)));
      refill(list, ...cards.map((card) => card.element));
      for (const { run } of cards) {
        if (signal.aborted) return;
        session.show(run);
        await session.generate(run, signal);
      }
    });
  }

  function update() {
    const question = cards[0]?.run.request.question;
    element.hidden = !cards.length || session.run?.request?.question !== question;
    for (const card of cards) card.update();
  }

  return { element, update, compare };
}

function makeCard(session, run) {
  const { effort } = run.request;
  const show = make("button", {
    type: "button", "aria-label": `Show the reply at ${effort} effort`, onclick: () => session.show(run),
  }, "Show");
  const table = make("dl");
  const answer = make("p", { class: "oss-chat-card-answer", dir: "auto" });
  const element = make("section", { class: "oss-chat-card", "aria-label": `${effort} effort` },
    make("h5", {}, effort), answer, table, show); // prettier-ignore

  function update() {
    const counts = run.tokens.length ? Object.entries(countTokens(run)) : []; // none where only text is known
    const rows = counts.map(([name, count]) => [name, `${count} tokens`]);
    rows.push(["time", describeSeconds(run.seconds)], ["end", describeStop(run)]);
    const pair = ([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text));
    refill(table, ...rows.map(pair));
    answer.textContent = run.answer || "no answer yet";
    const isShown = session.run === run;
    element.toggleAttribute("data-shown", isShown);
    show.textContent = isShown ? "Shown" : "Show";
    show.setAttribute("aria-pressed", String(isShown));
  }

  return { run, element, update };
}
