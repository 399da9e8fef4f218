/**
 * ArraySource: the caller's own numbers over the caller's own tokens, without a model.
 *
 * The views of tokens, experts and attention take an array with a name and a unit:
 *
 *     new ArraySource(["The", " cat"], { values, shape: [2, 2], name: "surprise", unit: "nats" })
 *
 * An array is [seq], [layer, seq, slot] or [head, query, key].
 *
 * @typedef {object} CallerArray
 * @property {ArrayLike<number>} values  row by row
 * @property {number[]} shape
 * @property {string} name
 * @property {string} [unit]
 * @property {"seq" | "layer seq slot" | "head seq seq"} [axes]  by default, an array with two equal
 *   last axes is [head, query, key]
 */

import { LabError } from "../errors.js";
import { Listeners } from "./source.js";

const AXES = ["seq", "layer seq slot", "head seq seq"];

/** @implements {import("./source.js").Source} */
export class ArraySource {
  /**
   * @param {string[]} texts  of the tokens
   * @param {CallerArray} [array]
   */
  constructor(texts, array) {
    if (!Array.isArray(texts) || !texts.every((text) => typeof text === "string")) {
      throw new LabError("expected the tokens as a list of texts");
    }
    this.kind = "array";
    this.name = array?.name ?? "your tokens";
    this.array = array ? checkArray(array, texts.length) : null;
    this.config = this.array ? describeShape(this.array) : { layer_types: [] };
    this.can = new Set();
    this.examples = [];
    this.listeners = new Listeners();
    this.runs = [makeRun(texts)];
    this.shown = this.runs[0];
  }

  on(change, call) {
    return this.listeners.on(change, call);
  }

  show(run) {
    this.shown = run;
    this.listeners.notify("shown", run);
  }

  hasPoint() {
    return false;
  }

  async points(run, name) {
    throw new LabError(`there is no model to compute ${name}; this view shows your own array`);
  }

  async analyze(run, name) {
    throw new LabError(`there is no model to compute ${name}; this view shows your own array`);
  }

  close() {}
}

/**
 * The array with its axes; throws LabError if it does not fit the tokens.
 * @param {CallerArray} array
 * @param {number} seq  number of tokens
 * @returns {CallerArray}
 */
function checkArray({ values, shape, name, unit = "", axes }, seq) {
  const size = shape.reduce((product, n) => product * n, 1);
  if (!name) throw new LabError("the array needs a name");
  if (size !== values.length) {
    throw new LabError(`${name} has ${values.length} numbers, but the shape [${shape}] needs ${size}`);
  }
  const found = axes ?? findAxes(shape);
  const names = found.split(" ");
  const isEverySeq = names.every((axis, n) => axis !== "seq" || shape[n] === seq);
  if (!AXES.includes(found) || names.length !== shape.length || !isEverySeq) {
    const wanted = `[${seq}], [layer, ${seq}, slot] or [head, ${seq}, ${seq}]`;
    throw new LabError(`${name} has the shape [${shape}]; ${seq} tokens need ${wanted}`);
  }
  return { values, shape, name, unit, axes: found };
}

function findAxes(shape) {
  if (shape.length === 1) return "seq";
  return shape[1] === shape[2] ? "head seq seq" : "layer seq slot";
}

/** The fields of config.json that the shape shows. */
function describeShape({ shape, axes }) {
  const layers = { layer_types: [] }; // no window is known
  if (axes === "head seq seq") return { num_attention_heads: shape[0], ...layers };
  if (axes === "layer seq slot") {
    return { num_hidden_layers: shape[0], experts_per_token: shape[2], ...layers };
  }
  return layers;
}

function makeRun(texts) {
  const label = { message: 0, role: null, channel: null, recipient: null, part: "content" };
  const unknown = { logprob: null, alternatives: [] };
  return {
    id: "tokens",
    tokens: texts.map((text) => ({ id: null, text, ...label, ...unknown })),
    promptLength: 0,
    request: null,
    interventions: [],
    parent: null,
    stop: null,
    diagnostics: [],
    openCalls: [],
    messages: [],
    calls: [],
    note: null,
    answer: "",
    seconds: 0,
  };
}
