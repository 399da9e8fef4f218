/**
 * Marks of the tokens whose prediction depends on a single expert.
 *
 * Most tokens do not: knocking out any one expert slot changes nothing. The marks show which tokens
 * are worth a look. They take many forward passes, so they are computed only on request.
 */

import { make } from "../elements.js";
import { term } from "../glossary.js";

const FIND = "Find tokens where an expert matters";
const START = 0.1; // nats

export class KnockOutMarks {
  /**
   * @param {ReturnType<import("../frame.js").makeFrame>} frame
   * @param {import("../../source/source.js").Source} source
   * @param {() => void} changed  called when other tokens are marked
   */
  constructor(frame, source, changed) {
    Object.assign(this, { frame, source, changed, run: null, threshold: START });
    /** Largest change of each token, by run. @type {Map<string, Float32Array>} */
    this.found = new Map();
    this.button = make("button", { type: "button", onclick: () => this.find() }, FIND);
    this.shown = make("output", {});
    this.slider = make("input", {
      type: "range", min: "0.01", max: "3", step: "0.01", value: `${START}`,
      oninput: () => this.setThreshold(),
    }); // prettier-ignore
    this.settings = make("label", { hidden: true }, "Mark changes above", this.slider, this.shown);
    this.sentence = make("p", { class: "oss-token-count", role: "status" });
    const note = make("span", {}, "Uses a ", term("knock-out"), " of every expert.");
    if (source.can.has("knockOutMarks")) frame.controls.append(this.button, note, this.settings);
    frame.body.before(this.sentence);
  }

  show(run) {
    this.run = run;
    this.button.disabled = !run || run.tokens.length < 2;
    this.report();
  }

  setThreshold() {
    this.threshold = Number(this.slider.value);
    this.report();
    this.changed();
  }

  async find() {
    const { run, frame } = this;
    frame.clearError();
    this.button.disabled = true;
    this.button.textContent = "Knocking out experts …";
    try {
      const { largest } = await this.source.analyze(run, "knockOutMarks", {});
      this.found.set(run.id, largest);
    } catch (problem) {
      frame.fail(problem);
    } finally {
      this.button.textContent = FIND;
      this.button.disabled = false;
    }
    this.report();
    this.changed();
  }

  /** Largest change of a log-probability at a token, nats; null if it is not known. */
  at(n) {
    const change = this.found.get(this.run?.id)?.[n];
    return Number.isFinite(change) ? change : null;
  }

  isMarked(n) {
    return this.at(n) > this.threshold;
  }

  /** Positions of the tokens whose change is known: of the reply, or of a prompt without one. */
  get positions() {
    const count = this.found.get(this.run?.id)?.length ?? 0;
    const { promptLength } = this.run ?? {};
    const from = promptLength < count ? promptLength : 0;
    const all = Array.from({ length: count - from }, (_, n) => from + n);
    return all.filter((n) => this.at(n) !== null);
  }

  get marked() {
    return this.positions.filter((n) => this.isMarked(n));
  }

  report() {
    const { positions, threshold } = this;
    this.settings.hidden = !positions.length;
    this.shown.textContent = `${threshold.toFixed(2)} nats`;
    this.slider.setAttribute("aria-valuetext", this.shown.textContent);
    this.sentence.textContent = positions.length
      ? `${this.marked.length} of ${positions.length} tokens: the log-probability changes by more than ` +
        `${threshold.toFixed(2)} nats if one expert is knocked out. They are marked ◆.`
      : "";
  }

  data() {
    if (!this.positions.length) return null;
    return { threshold: this.threshold, largest: [...this.found.get(this.run.id)], marked: this.marked };
  }
}
