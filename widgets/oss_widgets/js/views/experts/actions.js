/**
 * Ablate or force the selected expert, and see whether the answer changes more than with the null.
 */

import { LabError } from "../../errors.js";
import { make, makeChoice, refill } from "../elements.js";
import { term } from "../glossary.js";
import { describeIntervention } from "../run_names.js";
import { forkPosition, planTrial, runTrial } from "./trial.js";
import { compareToNull, makeResults } from "./trial_results.js";

export class Actions {
  /** @param {(run: object) => void} compare  overlays a run */
  constructor(source, frame, compare) {
    Object.assign(this, { source, frame, compare, recordings: null, abort: null });
    this.element = make("section", { "aria-label": "Change the experts" });
    this.title = make("h4");
    const button = (text, kind, isAsked) => {
      const start = (event) => this.start(kind, isAsked, event.currentTarget);
      return make("button", { type: "button", onclick: start }, text);
    };
    this.ablate = button("Ablate from here on", "ablate", false);
    this.again = button("Ask again without it", "ablate", true);
    this.force = button("Force it from here on", "force", false);
    this.cancel = make("button", { type: "button", onclick: () => this.abort?.abort() }, "Cancel");
    const choices = [
      { value: "token", text: "another of this token" },
      { value: "layer", text: "any of this layer" },
    ];
    this.from = makeChoice("Expert of the null", choices, "token", () => this.update());
    this.seed = make("input", { type: "number", min: "0", step: "1", value: "0", class: "oss-experts-seed" });
    this.hint = make("p");
    this.status = make("p", { class: "oss-experts-verdict", role: "status" });
    this.results = make("div", { class: "oss-experts-results" });
    this.element.append(
      this.title,
      make("div", { class: "oss-controls" }, this.ablate, this.again, this.force, this.cancel),
      make(
        "div", { class: "oss-controls" }, make("span", {}, term("null", "Null"), ": the same at"), this.from,
        make("label", {}, "Seed of the null", this.seed),
      ),
      this.hint,
      this.status,
      this.results,
    ); // prettier-ignore
  }

  /** @param {{layer: number, token: number | null, expert: number | null}} place */
  show(recordings, place) {
    Object.assign(this, { recordings, place });
    this.update();
  }

  update() {
    if (!this.recordings) return;
    const { source, place } = this;
    const { run } = this.recordings;
    this.element.hidden = place.expert === null || !(source.can.has("fork") || source.can.has("ask"));
    if (this.element.hidden) return;
    const isToken = place.token !== null;
    const at = isToken ? forkPosition(run, place.token) : null;
    const isChosen = this.chosen().includes(place.expert);
    this.title.textContent = `Change expert ${place.expert} of layer ${place.layer}`;
    this.ablate.hidden = this.force.hidden = !source.can.has("fork");
    this.again.hidden = !source.can.has("ask") || !run.request;
    this.ablate.disabled = this.force.disabled = this.abort !== null || at === null;
    this.force.disabled ||= isChosen;
    this.again.disabled = this.abort !== null;
    this.cancel.hidden = this.abort === null;
    this.hint.textContent = this.explain(isToken, at, isChosen);
  }

  explain(isToken, at, isChosen) {
    if (this.abort !== null) return "";
    if (!isToken) return "Select a token to change the expert from there on.";
    if (at === null) return "The run ended with this token; select an earlier one to change the rest.";
    const where = at > this.place.token + 1 ? "from the end of the prompt on" : "from this token on";
    const forced = isChosen
      ? "It is among the experts of this token, so forcing it here would change nothing."
      : "Forcing puts it into the last slot of every token that did not choose it.";
    return `Changes apply ${where}. ${forced}`;
  }

  chosen() {
    const { layer, token } = this.place;
    return token === null ? [] : this.recordings.chosen(layer, token).map(({ expert }) => expert);
  }

  async start(kind, isAsked, button) {
    const { source, place, frame } = this;
    const { run } = this.recordings;
    frame.clearError();
    try {
      const plan = this.plan(kind);
      this.abort = new AbortController();
      this.update();
      this.cancel.focus(); // the pressed button is disabled now
      const at = isAsked ? null : forkPosition(run, place.token);
      const texts = [plan.change, plan.control].map(describeIntervention);
      let runs = [];
      let drawn = 0;
      for await (runs of runTrial(source, run, plan, at, this.abort.signal)) {
        if (performance.now() - drawn < 100) continue;
        this.status.textContent = `Reply ${runs.length} of 3, ${runs.at(-1).tokens.length} tokens …`;
        drawn = performance.now();
      }
      const isCanceled = this.abort.signal.aborted;
      const options = { start: at ?? run.promptLength, seed: this.seed.value, source, compare: this.compare };
      refill(this.results, makeResults(runs, texts, options));
      this.status.textContent = isCanceled ? "Canceled; what was generated stays." : compareToNull(runs);
    } catch (problem) {
      this.status.textContent = "";
      frame.fail(problem);
    } finally {
      this.abort = null;
      this.update();
      if (document.activeElement === document.body) button.focus(); // Cancel is hidden now
    }
  }

  plan(kind) {
    const seed = Number(this.seed.value);
    if (this.seed.value === "" || !Number.isSafeInteger(seed) || seed < 0) {
      const given = `the seed of the null is “${this.seed.value}”`;
      throw new LabError(`${given}; write a whole number of 0 or more`);
    }
    const { num_experts: experts, experts_per_token: slots } = this.source.config;
    const chosen = this.chosen();
    const inSlots = chosen.length ? chosen : Array.from({ length: slots }, () => -1);
    return planTrial(kind, this.place, inSlots, experts, { from: this.from.value, seed });
  }

  close() {
    this.abort?.abort();
  }
}
