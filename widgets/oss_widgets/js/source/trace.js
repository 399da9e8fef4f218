/**
 * TraceSource: stored traces, without a model. Each file is a run. Views show what was recorded and
 * hide the rest.
 */

import { lensOfLogits } from "../analysis/lens.js";
import { LabError } from "../errors.js";
import { quote } from "../python_text.js";
import { Listeners } from "./source.js";
import { TraceFile } from "./trace_file.js";
import { TraceRun } from "./trace_run.js";

const LENS = "out.layer_logits";

/** @implements {import("./source.js").Source} */
export class TraceSource {
  /**
   * Throws LabError for a file that is not a trace, or for traces of models of different shapes.
   * @param {Uint8Array | {name: string, bytes: Uint8Array} | (Uint8Array | {name: string,
   *   bytes: Uint8Array})[]} files  the name of a file becomes the id of its run
   */
  constructor(files) {
    const given = (Array.isArray(files) ? files : [files]).map((file, n) =>
      file instanceof Uint8Array ? { name: `trace-${n + 1}`, bytes: file } : file,
    );
    const same = given.find(({ name }, n) => given.findIndex((each) => each.name === name) < n);
    if (same) throw new LabError(`two traces are named ${same.name}; rename one of them`);
    this.kind = "trace";
    this.runs = given.map(({ name, bytes }) => new TraceRun(new TraceFile(bytes, name), name));
    const [first, ...others] = this.runs.map(({ file }) => file);
    for (const [n, { config }] of others.entries()) checkShape(first.config, config, given[n + 1].name);
    this.config = first.config;
    this.name = nameModel(first.head.origin);
    const hasLens = this.runs.every(({ file }) => file.isWhole(LENS));
    this.can = new Set(hasLens ? ["lens"] : []);
    this.examples = [];
    this.listeners = new Listeners();
    this.shown = this.runs[0];
  }

  on(change, call) {
    return this.listeners.on(change, call);
  }

  show(run) {
    this.shown = run;
    this.listeners.notify("shown", run);
  }

  /** Whether a trace has a point; without a layer: in any layer. */
  hasPoint(name, layer, run = this.shown) {
    return run.file.has(name, layer);
  }

  async points(run, name, layer, range = null) {
    return run.file.points(name, layer, range);
  }

  async analyze(run, name, { from = 0, to = Infinity, top = 5 } = {}) {
    if (name === "lens" && this.can.has(name)) return readLens(run, from, to, top);
    throw new LabError(`a stored trace cannot compute ${name}; load the model for it`);
  }

  async ask() {
    throw new LabError("a stored trace cannot answer questions; load the model to ask");
  }

  async *step() {
    throw new LabError("a stored trace cannot be continued; load the model to continue");
  }

  async fork() {
    throw new LabError("a stored trace cannot be changed; load the model to change a reply");
  }

  async answerCalls() {
    throw new LabError("a stored trace cannot be continued; load the model to answer its calls");
  }

  async estimate() {
    return null;
  }

  async toPython(run) {
    return `from oss_lab import read_trace\n\ntrace = read_trace(${quote(run.id)})\n`;
  }

  close() {}
}

/** The logit lens from the stored logits of every layer; those of the last are the model's. */
function readLens({ file, tokens }, from, to, top) {
  const range = { from, to: Math.min(to, tokens.length - 1) };
  if (!(from < range.to)) throw new LabError(`no token follows position ${from}`);
  const targets = tokens.slice(from + 1, range.to + 1).map(({ id }) => id);
  const layers = file.layersOf(LENS).map((layer) => file.points(LENS, layer, range));
  const cells = lensOfLogits(layers, layers.at(-1), targets, top);
  const texts = file.head.texts ?? {};
  for (const cell of cells.flat()) cell.topTexts = cell.topIds.map((id) => texts[id] ?? `<token ${id}>`);
  return cells;
}

/** A checkpoint has no name in a trace, but a hash of its files. */
function nameModel({ checkpoint, dtype, kernels }) {
  const which = checkpoint ? `checkpoint ${checkpoint.slice(0, 8)}` : "unnamed checkpoint";
  return `${which}, ${dtype}, ${kernels} kernels`;
}

function checkShape(expected, found, name) {
  for (const field of ["num_hidden_layers", "num_attention_heads"]) {
    if (found[field] !== undefined && expected[field] !== undefined && found[field] !== expected[field]) {
      const what = `${found[field]}, but the first trace has ${expected[field]}`;
      throw new LabError(`${name}: ${field} is ${what}; open traces of models of the same shape`);
    }
  }
}
