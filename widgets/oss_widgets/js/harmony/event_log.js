/**
 * The events of a parser that its caller has not taken yet, and all of its diagnostics.
 */

import { HarmonyError } from "../errors.js";

/** Collects events in order. A strict log throws its first new diagnostic instead. */
export class EventLog {
  constructor(isStrict) {
    this.diagnostics = [];
    this.isStrict = isStrict;
    this.events = [];
    this.thrown = 0; // number of diagnostics that were already thrown
  }

  add(event) {
    this.events.push(event);
  }

  /** Add a diagnostic of the token at this position. */
  report(position, kind, message) {
    const diagnostic = { event: "diagnostic", kind, position, message };
    this.diagnostics.push(diagnostic);
    this.events.push(diagnostic);
  }

  /** Throw the first diagnostic since the last call, and drop the events. */
  throwIfStrict() {
    if (!this.isStrict || this.diagnostics.length === this.thrown) return;
    const { position, kind, message } = this.diagnostics[this.thrown];
    this.thrown = this.diagnostics.length;
    this.events = [];
    throw new HarmonyError(`token ${position}: ${kind}: ${message}`);
  }

  /** The events since the last call. */
  take() {
    const events = this.events;
    this.events = [];
    return events;
  }
}
