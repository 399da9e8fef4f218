/**
 * Ask the question again with one head changed, and once more with the same change at another head
 * of the layer, the null. Shows the three answers.
 */

import { make, refill } from "../elements.js";
import { term } from "../glossary.js";
import { describeIntervention } from "../run_names.js";
import { describeDifference, drawNull, listOthers, startChanged } from "../trial.js";

const ACTIONS = [
  { kind: "RemoveSink", text: "Remove this head's sink" },
  { kind: "AblateHead", text: "Ablate this head" },
];

export class HeadActions {
  /**
   * @param {HTMLElement} element
   * @param {import("../../source/source.js").Source} source
   * @param {ReturnType<import("../frame.js").makeFrame>} frame
   */
  constructor(element, source, frame) {
    Object.assign(this, { source, frame, abort: null });
    this.buttons = ACTIONS.map((action) =>
      make("button", { type: "button", onclick: () => this.start(action) }, action.text),
    );
    const number = { type: "number", min: 0, step: 1, value: 0 };
    this.seed = make("input", { ...number, class: "oss-attention-seed" });
    const cancel = { type: "button", onclick: () => this.abort?.abort() };
    this.cancel = make("button", cancel, "Cancel");
    this.cancel.hidden = true;
    this.cost = make("p", { class: "oss-caption" });
    this.results = make("div", { class: "oss-attention-results" });
    const controls = make("div", { class: "oss-controls" }, this.buttons, this.cancel);
    controls.append(make("label", {}, "Seed of the null", this.seed));
    const lead = make("p", {}, "Asks again with the change, then with the same change at another head, the ");
    lead.append(term("null"), ".");
    const heading = make("h4", {}, "What if this head were different?");
    this.root = make("div", {}, heading, lead, controls, this.cost, this.results);
    element.append(this.root);
  }

  /** Offer the actions for a head; hidden where they cannot be done. */
  update({ run, heads }, layer, head) {
    const { can } = this.source;
    if (run !== this.place?.run) refill(this.results);
    this.place = { run, heads, layer, head };
    this.root.hidden = !(can.has("ask") && can.has("fork") && run?.request) || heads < 2;
    if (this.root.hidden) return;
    const obstacle = explainObstacle(run);
    for (const button of this.buttons) button.disabled = obstacle !== null || this.abort !== null;
    this.cost.textContent = obstacle ?? describeCost(run);
  }

  async start({ kind }) {
    const { frame, source } = this;
    const { run, heads, layer, head } = this.place;
    frame.clearError();
    refill(this.results);
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.setBusy(true);
    try {
      const seed = Number(this.seed.value);
      const other = drawNull(listOthers(heads, head), seed);
      const shown = [["unchanged", run]];
      for (const changed of [head, other]) {
        const change = { kind, layer, head: changed };
        const asked = await startChanged(source, run, null, [change]);
        for await (const _ of source.step(asked, { signal })) {
          const count = asked.tokens.length - asked.promptLength;
          frame.report(`Asking again, ${describeIntervention(change)}: ${count} tokens …`);
        }
        const title = describeIntervention(change);
        shown.push([changed === head ? title : `null: ${title} (seed ${seed})`, asked]);
        if (signal.aborted) break;
      }
      if (run !== this.place.run) return frame.report(""); // another run is shown now
      refill(this.results, shown.map(([title, each]) => this.describe(title, each, run)));
      frame.report(signal.aborted ? "Canceled." : "Both replies are finished.");
    } catch (problem) {
      frame.report("");
      frame.fail(problem);
    } finally {
      this.abort = null;
      this.setBusy(false);
    }
  }

  setBusy(isBusy) {
    this.cancel.hidden = !isBusy;
    this.update(this.place, this.place.layer, this.place.head);
  }

  describe(title, run, unchanged) {
    const answer = run.answer || "(no answer)";
    const show = { type: "button", onclick: () => this.source.show(run) };
    return make(
      "div",
      { class: "oss-attention-result" },
      make("strong", {}, title),
      make("bdi", { class: "oss-attention-answer" }, answer),
      run === unchanged ? null : make("span", {}, describeDifference(run, unchanged)),
      run === unchanged ? null : make("button", show, "Show this run"),
    );
  }

  close() {
    this.abort?.abort();
  }
}

/** Why a run cannot be compared with another reply to its question, or null. */
function explainObstacle({ stop, parent }) {
  if (stop === null) return "The reply is not finished: finish it first.";
  return parent ? "This run was changed on the way: show one that was asked without changes." : null;
}

function describeCost({ seconds, request: { sampling } }) {
  const cost = `Two replies; the first one took ${seconds.toFixed(1)} s.`;
  const isRandom = (sampling?.temperature ?? 0) > 0 && (sampling.seed ?? null) === null;
  return isRandom ? `${cost} It was sampled without a seed, so replies also differ by chance.` : cost;
}
