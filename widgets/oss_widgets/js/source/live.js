/**
 * LiveSource: nano running in the page. Every number is computed here, when a view requests it.
 */

import { contextLength } from "../engine/generate.js";
import { checkSampling } from "../engine/sampler.js";
import { readConfig } from "../model/config.js";
import { Transformer } from "../model/transformer.js";
import { LabError } from "../errors.js";
import { POINTS } from "../hooks/points.js";
import { runCalculator } from "../nano/calculator.js";
import { buildPrompt } from "../harmony/prompt.js";
import { Tokenizer } from "../tokenizer.js";
import { writeOutcome } from "./call.js";
import { ANALYSES } from "./live_analyses.js";
import { LiveRun } from "./live_run.js";
import { writePython } from "./python_code.js";
import { Listeners } from "./source.js";

const CALCULATOR = "functions.calculator";

/** @implements {import("./source.js").Source} */
export class LiveSource {
  /**
   * @param {object} parts
   * @param {object} parts.config  the fields of config.json
   * @param {Uint8Array} parts.weights  the safetensors file
   * @param {string} parts.vocabulary  the text of nano.tiktoken
   * @param {object} parts.gallery  what `oss_widgets/page/gallery_data.py` writes
   */
  constructor({ config, weights, vocabulary, gallery }) {
    this.kind = "live";
    this.name = "gpt-oss-nano";
    this.config = readConfig(config);
    this.model = new Transformer(this.config, weights);
    this.tokenizer = new Tokenizer(vocabulary);
    this.examples = gallery.examples;
    this.calculator = gallery.calculator;
    this.can = new Set(["ask", "fork", "points", ...Object.keys(ANALYSES)]);
    /** @type {LiveRun[]} */
    this.runs = [];
    this.shown = null;
    this.listeners = new Listeners();
    this.closing = new AbortController();
  }

  on(change, call) {
    return this.listeners.on(change, call);
  }

  /** @param {import("./source.js").Request} request */
  async ask(request) {
    if (!request.question.trim()) {
      throw new LabError("there is no question; write one and press Enter");
    }
    const { seed: _, ...sampling } = request.sampling ?? {};
    checkSampling(sampling);
    checkLimit(request.maxTokens);
    const run = new LiveRun(this, this.newId(), request);
    run.begin(buildPrompt(request.question, request));
    this.checkFits(run);
    run.reuse(this.runs);
    return this.add(run);
  }

  /** The prompt, and one token of a reply. */
  checkFits({ tokens: { length } }) {
    const context = contextLength(this.config);
    if (length > context) {
      const problem = `the prompt has ${length} tokens; the context is ${context}`;
      throw new LabError(`${problem}; ask a shorter question`);
    }
  }

  newId() {
    return `run-${this.runs.length + 1}`;
  }

  add(run) {
    this.runs.push(run);
    this.listeners.notify("runs", run);
    return run;
  }

  async *step(run, { count = Infinity, signal } = {}) {
    if (run.isStepping) throw new LabError(`${run.id} is already being generated; pause it first`);
    run.isStepping = true;
    const stop = AbortSignal.any([this.closing.signal, ...(signal ? [signal] : [])]);
    try {
      for (let left = count; this.appendKnownOutputs(run) && left > 0 && !stop.aborted; ) {
        for await (const token of run.write(left, stop)) {
          left -= 1;
          this.listeners.notify("tokens", run);
          yield token;
        }
        if (run.stop === "length") this.listeners.notify("tokens", run); // the context may have ended
      }
    } finally {
      run.isStepping = false;
    }
  }

  /** Whether the run can be continued, once the known outputs of its calls are appended. */
  appendKnownOutputs(run) {
    if (run.stop === null) return true;
    const outputs = run.findOutputs();
    if (!outputs) return false;
    run.appendOutputs(outputs);
    this.listeners.notify("tokens", run);
    return true;
  }

  async fork(run, at, { ids, text, interventions } = {}) {
    const written = ids ?? (text === undefined ? [] : this.tokenizer.encode(text));
    return this.add(run.fork(this.newId(), at, written, interventions));
  }

  async answerCalls(run, outputs) {
    if (run.isStepping) throw new LabError(`${run.id} is being generated; wait for its calls`);
    run.appendOutputs(outputs.map(writeOutcome));
    this.listeners.notify("tokens", run);
  }

  /**
   * The outcome of a call: the example's, or the calculator's; null if nobody knows it.
   * @returns {import("./call.js").Outcome | null}
   */
  runTool(request, { name, text }) {
    const known = request.toolOutputs?.[text];
    if (known !== undefined) return writeOutcome(known);
    if (name !== CALCULATOR) return null;
    const started = performance.now();
    const end = (output, error) => {
      return { output, error, notes: [], seconds: (performance.now() - started) / 1000 };
    };
    try {
      return end(runCalculator(text), null);
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      return end(`error: ${error.message}`, "the tool failed");
    }
  }

  /**
   * From the speed of all runs here, and the usual length of finished replies with this effort. Null
   * if there is none.
   */
  async estimate(run) {
    if (run.stop !== null) return 0;
    const { effort } = run.request;
    const alike = this.runs.filter(({ stop, request }) => stop !== null && request.effort === effort);
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    const speed = sum(this.runs.map((each) => each.generated)) / sum(this.runs.map((each) => each.seconds));
    if (!alike.length || !(speed > 0)) return null;
    const countReply = ({ tokens, promptLength }) => tokens.length - promptLength;
    const usual = sum(alike.map(countReply)) / alike.length;
    return Math.max(0, usual - countReply(run)) / speed;
  }

  async toPython(run) {
    return writePython(run, this.runs);
  }

  show(run) {
    this.shown = run;
    this.listeners.notify("shown", run);
  }

  hasPoint(name) {
    return Object.hasOwn(POINTS, name);
  }

  async points(run, name, layer, range = null) {
    return run.points(name, layer, range);
  }

  async analyze(run, name, options) {
    if (!this.can.has(name)) throw new LabError(`this page cannot compute ${name}`);
    return ANALYSES[name](run ?? { source: this }, options); // a block needs no run
  }

  /** Ends every step that is running; nothing can be generated afterwards. */
  close() {
    this.closing.abort();
  }
}

/** A limit of 0 would never end a run. */
function checkLimit(maxTokens = 1) {
  if (!(Number.isInteger(maxTokens) && maxTokens >= 1)) {
    throw new LabError(`maxTokens is ${maxTokens}; it must be an integer, 1 or more`);
  }
}
