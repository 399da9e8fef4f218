/**
 * What the parts of the chat share: which run is shown, and the one job that generates tokens.
 *
 * A job is a question, a fork or several of them. A new job ends the one before it and waits until
 * it has ended, since a run cannot be generated twice at the same time.
 */

import { describeStop } from "../run_names.js";
import { describeSeconds } from "./run_text.js";

const SLOW = 2; // seconds from which a duration is shown before the click
const LONG = 30; // seconds from which a reply waits for a click

export class Session {
  /**
   * @param {import("../../source/source.js").Source} source
   * @param {import("../selection.js").Selection} selection
   * @param {ReturnType<import("../frame.js").makeFrame>} frame
   * @param {import("../../source/source.js").Run | null} run  shown until another one is chosen here
   * @param {(text: string) => void} announce  for a screen reader
   */
  constructor(source, selection, frame, run, announce) {
    Object.assign(this, { source, selection, frame, announce, own: run });
    /** The position after which the reply is hidden; null shows all of it. */
    this.scrub = null;
    /** @type {{abort: AbortController, isCanceled: boolean} | null} */
    this.job = null;
    this.ending = Promise.resolve();
    /** A reply that waits for a click, because it takes long. */
    this.offer = null;
    /** Seconds of the last reply at each effort. */
    this.expected = {};
    /** Seconds until a paused run is finished. */
    this.remaining = null;
    /** Takes the focus when a control with the focus goes away. */
    this.home = frame.root;
    this.parts = [];
    this.frameRequest = null;
  }

  get run() {
    return this.own ?? this.source.shown;
  }

  /** The token that is edited or continued after: the scrub position, else the selected, else the last. */
  get place() {
    const { run, selection, scrub } = this;
    const isInReply = selection.token >= run.promptLength && selection.token < run.tokens.length;
    const chosen = scrub ?? (isInReply ? selection.token : Infinity);
    return Math.min(chosen, run.tokens.length - 1);
  }

  show(run) {
    this.own = null;
    if (this.source.shown !== run) this.source.show(run);
    this.showAll();
  }

  /** Show the reply up to its end. */
  showAll() {
    this.scrub = null;
    this.changed();
  }

  /** Update all parts with the next frame. */
  changed() {
    this.frameRequest ??= requestAnimationFrame(() => {
      this.frameRequest = null;
      for (const part of this.parts) part.update();
    });
  }

  /**
   * Run a job; its mistakes are shown in the frame.
   * @param {(signal: AbortSignal) => Promise<void>} work
   */
  async start(work) {
    this.stop();
    const before = this.ending;
    const job = { abort: new AbortController(), isCanceled: false };
    this.job = job;
    this.remaining = null;
    this.frame.clearError();
    this.announce(""); // the same answer is announced again
    this.frame.root.setAttribute("aria-busy", "true");
    this.changed();
    const mine = before.then(() => this.finishJob(job, work));
    this.ending = mine.catch(() => {});
    return mine;
  }

  async finishJob(job, work) {
    try {
      if (!job.abort.signal.aborted) await work(job.abort.signal);
      if (this.job === job) await this.sumUp(job);
    } catch (problem) {
      this.frame.fail(problem);
    } finally {
      if (this.job === job) this.job = null;
      this.changed();
    }
  }

  async sumUp({ isCanceled }) {
    const { run } = this;
    if (!run) return;
    if (run.stop === null) this.remaining = { run, seconds: await this.source.estimate(run) };
    const written = `${run.tokens.length - run.promptLength} tokens`;
    const isText = run.tokens.length === 0; // the source does not know the tokens
    if (isText) this.announce(run.answer ? `Answer: ${run.answer}` : "No answer.");
    else if (isCanceled) this.announce(`Canceled after ${written}.`);
    else if (run.stop === null) this.announce(`Paused after ${written}.`);
    else if (run.answer) this.announce(`Answer: ${run.answer}`);
    else this.announce(`The reply ${describeStop(run)}; it has ${written}.`);
  }

  /** End the job; what was generated stays. */
  stop(isCanceled = false) {
    if (!this.job) return;
    this.job.isCanceled ||= isCanceled;
    this.job.abort.abort();
    this.offer?.decide(false);
  }

  /** Generate tokens of a run, in a job. Waits for a click first if it takes long. */
  async generate(run, signal, count = Infinity) {
    if (signal.aborted) return;
    if (count === Infinity && !(await this.confirm(run, signal))) return;
    const step = count === Infinity ? { signal } : { signal, count };
    for await (const _ of this.source.step(run, step)) this.changed();
    const isWhole = run.stop !== null && !run.parent && run.request;
    if (isWhole) this.expected[run.request.effort] = run.seconds;
  }

  /** A long reply waits for a click. */
  async confirm(run, signal) {
    const seconds = await this.source.estimate(run);
    if (signal.aborted) return false;
    if (!(seconds > LONG)) return true;
    const isAccepted = await new Promise((decide) => {
      this.offer = { seconds, decide };
      this.changed();
    });
    this.offer = null;
    return isAccepted;
  }

  ask(request) {
    if (this.run) this.selection.set({ token: null }); // it is not a token of the new run
    return this.start(async (signal) => {
      const run = await this.source.ask(request);
      this.show(run);
      await this.generate(run, signal);
    });
  }

  /** Continue with another version of a run. */
  fork(run, at, change) {
    return this.start(async (signal) => {
      const child = await this.source.fork(run, at, change);
      this.show(child);
      await this.generate(child, signal);
    });
  }

  close() {
    this.stop();
    this.job = null; // nothing is announced any more
    this.parts = [];
  }

  resume(count = Infinity) {
    const { run } = this;
    return this.start((signal) => this.generate(run, signal, count));
  }
}

/** " (about 6 s)" of a slow action, "" of a fast or unknown one. */
export function describeExpected(seconds) {
  return seconds > SLOW ? ` (about ${describeSeconds(seconds)})` : "";
}
