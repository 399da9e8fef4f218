/**
 * The file of a trace, as `oss_lab/record/trace_file.py` writes it: safetensors with a JSON header.
 *
 * A trace may contain a selection of positions and heads. Rows and heads that it does not contain are
 * NaN, or -1 for ids, so a view can index by position and by head. Only requested rows are read.
 */

import { readNumbers, readSafetensors } from "../checkpoint/safetensors.js";
import { LabError } from "../errors.js";
import { DERIVED } from "../hooks/derived.js";
import { POINTS } from "../hooks/points.js";

const ENTRY = "oss_lab.trace";
const FORMAT = 1;
const MOST_LAYERS = 1000;
const DTYPES = ["F32", "F16", "BF16", "I32", "U8"];
/** Points that can be computed from others without the weights. */
const DERIVABLE = ["moe.margin", "moe.entropy", "attn.lse"];

export class TraceFile {
  /**
   * @param {Uint8Array} bytes
   * @param {string} name  for messages
   */
  constructor(bytes, name) {
    try {
      this.read(bytes);
    } catch (error) {
      const isKnown = error instanceof LabError;
      const problem = isKnown ? error.message : `its header cannot be read (${error.message})`;
      throw new LabError(`${name} is not a trace of oss-lab, or it is damaged: ${problem}`);
    }
  }

  read(bytes) {
    const { tensors, metadata } = readSafetensors(bytes);
    if (metadata[ENTRY] === undefined) throw new LabError("it is a safetensors file without a trace");
    const head = JSON.parse(metadata[ENTRY]);
    if (head.format !== FORMAT) {
      throw new LabError(`it has format ${head.format}; this version reads ${FORMAT}`);
    }
    checkHeader(head);
    this.tensors = tensors;
    this.head = head;
    this.length = head.tokens.length;
    this.rows = head.positions && new Map(head.positions.map((position, row) => [position, row]));
    for (const [name, tensor] of tensors) this.check(name, tensor);
    const derived = this.deriveConfig();
    if (head.config) checkConfig(head, derived);
    this.config = head.config ?? derived;
  }

  check(name, { dtype, shape }) {
    const [point, layer] = name.split("/");
    const axes = Object.hasOwn(POINTS, point) ? POINTS[point].axes : null;
    if (axes === null || POINTS[point].isPerLayer === (layer === undefined)) {
      throw new LabError(`it has an unknown tensor ${name}`);
    }
    if (!DTYPES.includes(dtype)) throw new LabError(`${name} has the unknown type ${dtype}`);
    const { positions, heads } = this.head;
    const sizes = { seq: positions?.length ?? this.length, head: heads?.length };
    const isWrong = (axis, n) => sizes[axis] !== undefined && sizes[axis] !== shape[n];
    if (shape.length !== axes.length || axes.some(isWrong)) {
      throw new LabError(`${name} has the wrong shape [${shape}]`);
    }
  }

  /** What the shapes show of a model whose configuration is not in the file. */
  deriveConfig() {
    const { model_layers: layers, heads_per_kv_head: group, heads } = this.head;
    const sizes = {};
    for (const [name, { shape }] of this.tensors) {
      POINTS[name.split("/")[0]].axes.forEach((axis, n) => (sizes[axis] = shape[n]));
    }
    const largest = heads ? Math.max(...heads) : null;
    const count = heads ? group * Math.ceil((largest + 1) / group) : sizes.head;
    const fields = {
      num_hidden_layers: layers,
      num_attention_heads: count,
      num_key_value_heads: count && count / group,
      head_dim: sizes.head_dim,
      hidden_size: sizes.hidden,
      intermediate_size: sizes.width,
      num_experts: sizes.expert ?? this.countExperts(),
      experts_per_token: sizes.slot,
      vocab_size: sizes.vocab,
      layer_types: [], // not known, and nor is the window
    };
    return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  }

  /** One more than the largest id that was chosen. */
  countExperts() {
    const chosen = [...this.tensors].filter(([name]) => name.startsWith("moe.expert_ids/"));
    const ids = chosen.map(([, tensor]) => readNumbers(tensor).reduce((a, b) => Math.max(a, b), 0));
    return ids.length ? 1 + Math.max(...ids) : undefined;
  }

  /** One sentence about what the file does not contain; null if it has every position and head. */
  get missing() {
    const { positions, heads, config } = this.head;
    const parts = [];
    if (positions) parts.push(`only ${positions.length} of ${this.length} positions`);
    if (heads) parts.push(`only heads ${heads.join(", ")}`);
    const start = parts.length ? `this trace has ${parts.join(" and ")}` : null;
    if (config) return start;
    const derived = "has no configuration of the model, so the window of attention is not known";
    return start ? `${start}, and ${derived}` : `this trace ${derived}`;
  }

  /** @param {number | null} [layer]  without it: in any layer */
  has(name, layer) {
    if (layer === undefined) return this.has(name, null) || this.layersOf(name).length > 0;
    if (this.tensors.has(nameTensor(name, layer))) return true;
    const isDerivable = DERIVABLE.includes(name) && this.config.experts_per_token !== undefined;
    return isDerivable && POINTS[name].sources.every((each) => this.tensors.has(nameTensor(each, layer)));
  }

  /** Whether a point has every layer and every position. */
  isWhole(name) {
    return !this.rows && this.layersOf(name).length === this.head.model_layers;
  }

  layersOf(name) {
    const layers = Array.from({ length: this.head.model_layers }, (_, layer) => layer);
    return layers.filter((layer) => this.has(name, layer));
  }

  /**
   * A point at some positions.
   * @param {{from: number, to: number} | null} [range]  null for all positions
   * @returns {import("./source.js").Recording}
   */
  points(name, layer, range = null) {
    if (!this.has(name, layer)) throw new LabError(this.explainMissing(name, layer));
    const tensor = this.tensors.get(nameTensor(name, layer));
    if (tensor) return this.readRows(POINTS[name].axes, tensor, range);
    const { axes, sources } = POINTS[name];
    const recorded = sources.map((source) => this.points(source, layer, range));
    const data = DERIVED[name]({ config: this.config }, layer, ...recorded);
    return { shape: recorded[0].shape.slice(0, axes.length), data };
  }

  explainMissing(name, layer) {
    const layers = Object.hasOwn(POINTS, name) ? this.layersOf(name) : [];
    if (layers.length) return `${name} was recorded in layers ${layers.join(", ")}, not in ${layer}`;
    const kept = this.head.points.join(", ");
    return `this trace does not contain ${name}; it contains ${kept}: record it with lab.trace`;
  }

  readRows(axes, { dtype, shape, bytes }, range) {
    if (axes[0] !== "seq") return this.readHeads(axes, shape, toNumbers(dtype, bytes));
    const from = range?.from ?? 0;
    const to = Math.min(range?.to ?? this.length, this.length);
    const rowBytes = bytes.length / shape[0];
    const readBetween = (first, end) =>
      this.readHeads(axes, [end - first, ...shape.slice(1)],
        toNumbers(dtype, bytes.subarray(first * rowBytes, end * rowBytes)));
    if (!this.rows) return readBetween(from, to);
    const positions = this.head.positions.filter((position) => from <= position && position < to);
    const first = positions.length ? this.rows.get(positions[0]) : 0;
    const kept = readBetween(first, first + positions.length); // the positions increase
    const width = size(kept.shape.slice(1));
    const data = makeMissing(kept.data, (to - from) * width);
    positions.forEach((position, row) => {
      data.set(kept.data.subarray(row * width, (row + 1) * width), (position - from) * width);
    });
    return { shape: [to - from, ...kept.shape.slice(1)], data };
  }

  /** The numbers with an entry for every head, also those that were not recorded. */
  readHeads(axes, shape, data) {
    const axis = axes.findIndex((each) => each === "head" || each === "kv_head");
    if (axis < 0 || !this.head.heads) return { shape, data };
    const { num_attention_heads: count } = this.config;
    const group = axes[axis] === "head" ? 1 : this.head.heads_per_kv_head;
    const heads = [...new Set(this.head.heads.map((head) => Math.floor(head / group)))];
    if (group > 1) heads.sort((a, b) => a - b);
    const whole = shape.map((n, at) => (at === axis ? count / group : n));
    const width = size(shape.slice(axis + 1));
    const all = makeMissing(data, size(whole));
    for (let n = 0; n * width < data.length; n++) {
      const row = Math.floor(n / heads.length);
      const begin = (row * whole[axis] + heads[n % heads.length]) * width;
      all.set(data.subarray(n * width, (n + 1) * width), begin);
    }
    return { shape: whole, data: all };
  }
}

/** Throws LabError for a header that contradicts itself. */
function checkHeader({ tokens, labels, positions, heads, model_layers: layers, origin }) {
  if (labels.length !== tokens.length) {
    throw new LabError(`it has ${labels.length} labels for ${tokens.length} tokens`);
  }
  const isLabel = ([text, message]) => typeof text === "string" && Number.isInteger(message);
  if (!labels.every(isLabel)) throw new LabError("a label has a field of the wrong type");
  const isInside = (position, n) => position < tokens.length && position > (positions[n - 1] ?? -1);
  if (positions && !positions.every(isInside)) {
    throw new LabError("its positions do not increase within the sequence");
  }
  if (heads && !heads.every((head) => Number.isInteger(head) && head >= 0)) {
    throw new LabError("a head number is out of range");
  }
  if (!(Number.isInteger(layers) && 0 < layers && layers <= MOST_LAYERS)) {
    throw new LabError(`it has ${layers} layers; 1 to ${MOST_LAYERS} are possible`);
  }
  if (!Array.isArray(origin?.interventions)) throw new LabError("it does not name its origin");
}

/** Throws LabError for a configuration that contradicts the header or the tensors. */
function checkConfig({ config, heads }, derived) {
  const least = heads ? ["num_experts", "num_attention_heads", "num_key_value_heads"] : ["num_experts"];
  const fields = [
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "experts_per_token", "num_experts",
  ]; // prettier-ignore
  for (const field of fields) {
    const [said, found] = [config[field], derived[field] ?? null];
    const fits = found === null || said === found || (least.includes(field) && said > found);
    if (Number.isInteger(said) && said > 0 && fits) continue;
    const shown = found ?? "do not show it";
    throw new LabError(`its configuration says ${field} is ${said}, its tensors ${shown}`);
  }
  const { layer_types: types, sliding_window: window } = config;
  if (!(Array.isArray(types) && Number.isInteger(window) && window > 0)) {
    throw new LabError("its configuration does not say which layers have a window");
  }
}

function nameTensor(name, layer) {
  return layer === null ? name : `${name}/${layer}`;
}

function size(shape) {
  return shape.reduce((product, n) => product * n, 1);
}

/** Integers as Int32Array, which has room for -1. */
function toNumbers(dtype, bytes) {
  const numbers = readNumbers({ dtype, bytes });
  return dtype === "U8" ? Int32Array.from(numbers) : numbers;
}

function makeMissing(like, length) {
  return new like.constructor(length).fill(like instanceof Int32Array ? -1 : NaN);
}
