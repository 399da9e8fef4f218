/**
 * Tool calls that wait for an output: one input for each.
 */

import { make, refill } from "../elements.js";

/** @param {import("./session.js").Session} session */
export function makeCalls(session) {
  const inputs = make("div");
  const element = make(
    "form", { class: "oss-chat-calls", "aria-label": "Outputs of tools", onsubmit: send },
    inputs, make("button", { type: "submit" }, "Continue with this output"),
  ); // prettier-ignore
  let drawn = "";

  function send(event) {
    event.preventDefault();
    const { run } = session;
    session.home.focus(); // the form goes away
    const outputs = [...inputs.querySelectorAll("input")].map(({ value }) => value);
    session.start(async (signal) => {
      await session.source.answerCalls(run, outputs);
      await session.generate(run, signal);
    });
  }

  function update() {
    const { run } = session;
    const calls = session.source.can.has("ask") && !session.job ? (run?.openCalls ?? []) : [];
    element.hidden = calls.length === 0;
    const key = JSON.stringify([run?.id, calls]);
    if (key === drawn) return;
    drawn = key;
    refill(inputs, ...calls.map(({ name, text }) =>
      make("label", { class: "oss-chat-wide" },
        make("span", {}, `The model called ${name} with `, make("bdi", {}, text), ". Write its output"),
        make("input", { type: "text", dir: "auto" })),
    )); // prettier-ignore
  }

  return { element, update };
}
