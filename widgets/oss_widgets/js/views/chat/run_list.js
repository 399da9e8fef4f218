/**
 * All runs with what they were made from; any of them can be shown again.
 */

import { make, refill } from "../elements.js";
import { describeStop } from "../run_names.js";
import { describeOrigin } from "./run_text.js";

/** @param {import("./session.js").Session} session */
export function makeRunList(session) {
  const summary = make("summary");
  const list = make("ol", { class: "oss-chat-runs" });
  const element = make("details", { class: "oss-chat-run-list" }, summary, list);
  const items = new Map();

  function update() {
    const { runs } = session.source;
    element.hidden = runs.length === 0;
    summary.textContent = `Runs (${runs.length})`;
    if (items.size !== runs.length || runs.some(({ id }) => !items.has(id))) {
      for (const run of runs) if (!items.has(run.id)) items.set(run.id, makeItem(run));
      refill(list, ...runs.map(({ id }) => items.get(id).element));
    }
    if (element.open) for (const { update: draw } of items.values()) draw();
  }
  element.addEventListener("toggle", update);

  function makeItem(run) {
    const origin = make("span");
    const end = make("bdi", { class: "oss-chat-run-end" });
    const button = make("button", { type: "button", onclick: () => show(run) }, origin, end);
    const draw = () => {
      const question = run.parent || !run.request ? "" : ` "${run.request.question}"`;
      origin.textContent = `${run.id}: ${describeOrigin(run, session.source.runs)}${question} → `;
      end.textContent = run.answer || describeStop(run);
      button.setAttribute("aria-pressed", String(session.run === run));
    };
    return { element: make("li", {}, button), update: draw };
  }

  function show(run) {
    session.stop();
    session.show(run);
  }

  return { element, update };
}
