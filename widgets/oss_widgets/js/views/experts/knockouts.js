/**
 * Requests the knock-outs of the selected token and shows them, once per token of a run.
 */

import { make, refill } from "../elements.js";
import { makeKnockOutDetail } from "./knockout_detail.js";

export class KnockOuts {
  constructor(source, frame) {
    Object.assign(this, { source, frame });
    this.element = make("div");
    this.place = make("div");
    this.element.append(this.place);
    this.found = new WeakMap(); // by recordings, then by position
  }

  /** @param {import("./recordings.js").Recordings} recordings @param {number | null} position */
  show(recordings, position) {
    if (!this.source.can.has("knockOut")) return;
    if (recordings === this.recordings && position === this.position) return;
    Object.assign(this, { recordings, position });
    refill(this.place);
    if (position === null) return;
    if (position + 1 >= recordings.run.tokens.length) {
      refill(this.place, make("p", {}, "Nothing followed this token, so there is no prediction to compare."));
    } else if (this.isSlow()) {
      const start = () => this.measure(recordings, position);
      refill(this.place, make("button", { type: "button", onclick: start }, "Measure the knock-outs"));
    } else this.measure(recordings, position);
  }

  /** A Python kernel may hold a model that takes seconds per token. */
  isSlow() {
    return this.source.kind === "kernel";
  }

  async measure(recordings, position) {
    try {
      refill(this.place, make("p", {}, "Measuring the knock-outs …"));
      const found = await this.request(recordings, position);
      if (this.recordings !== recordings || this.position !== position) return;
      refill(this.place, makeKnockOutDetail(found, recordings, position));
    } catch (problem) {
      refill(this.place);
      this.frame.fail(problem);
    }
  }

  request(recordings, position) {
    if (!this.found.has(recordings)) this.found.set(recordings, new Map());
    const known = this.found.get(recordings);
    if (!known.has(position)) {
      known.set(position, this.source.analyze(recordings.run, "knockOut", { at: position + 1 }));
    }
    return known.get(position);
  }

  close() {
    this.recordings = null;
  }
}
