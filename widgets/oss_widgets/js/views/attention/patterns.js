/**
 * Where the numbers of the attention view are from: a run of the source, or the caller's array.
 * Both look the same to the rest of the view.
 *
 * @typedef {object} Patterns
 * @property {string} name
 * @property {string | null} unit  of the caller's array; null for attention weights
 * @property {number} [largest]  absolute value in the caller's array
 * @property {import("../../source/source.js").Run | null} run
 * @property {import("../../source/source.js").Token[] | null} tokens  null if nothing names them
 * @property {number} length  of the sequence
 * @property {number} layers
 * @property {number} heads
 * @property {number | null} kvHeads  null if unknown
 * @property {(layer: number) => number | null | undefined} windowOf  null if all earlier keys are
 *   visible; undefined if unknown
 * @property {(layer: number, query: number) => number} firstKey  the oldest visible key
 * @property {(query: number) => number} lastKey  attention is causal, an array may not be
 * @property {(layer: number) => boolean} hasPattern
 * @property {(layer: number) => boolean} hasSinks
 * @property {(layer: number, from: number, to: number) => Promise<Recording>} rows  [query head key]
 * @property {(layer: number) => Promise<Recording>} sinks  [seq head]
 *
 * @typedef {import("../../source/source.js").Recording} Recording
 */

import { LabError } from "../../errors.js";
import { firstKey } from "../../model/attention.js";
import { windowOf } from "../../model/config.js";

export const PATTERN = "attn.pattern";
export const SINKS = "attn.sink_mass";

/** @returns {Patterns} */
export function readRun(source, run) {
  const { config } = source;
  const findWindow = (layer) => (config.layer_types ? windowOf(config, layer) : undefined);
  return {
    name: PATTERN,
    unit: null,
    run,
    tokens: run.tokens,
    length: run.tokens.length,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads ?? 0, // a trace without any point of heads
    kvHeads: config.num_key_value_heads ?? null,
    windowOf: findWindow,
    firstKey: (layer, query) => firstKey(query, findWindow(layer) ?? null),
    lastKey: (query) => query,
    hasPattern: (layer) => source.hasPoint(PATTERN, layer),
    hasSinks: (layer) => source.hasPoint(SINKS, layer),
    rows: (layer, from, to) => source.points(run, PATTERN, layer, { from, to }),
    sinks: (layer) => source.points(run, SINKS, layer),
  };
}

/**
 * @param {import("../../source/array.js").CallerArray} array
 * @param {Run | null} run  names the tokens if it has as many as the array
 * @returns {Patterns}
 */
export function readArray({ values, shape, name, unit = "" }, run) {
  const [heads, length, keys] = shape;
  if (shape.length !== 3 || length !== keys || values.length !== heads * length * keys) {
    const found = `shape [${shape.join(", ")}] with ${values.length} values`;
    throw new LabError(`${name}: expected an array [head, seq, seq], got ${found}`);
  }
  const rows = async (layer, from, to) => {
    const data = new Float32Array((to - from) * heads * keys);
    for (let query = from; query < to; query++) {
      for (let head = 0; head < heads; head++) {
        const begin = (head * length + query) * keys;
        data.set(values.slice(begin, begin + keys), ((query - from) * heads + head) * keys);
      }
    }
    return { shape: [to - from, heads, keys], data };
  };
  return {
    name, unit, run: null, length, heads, rows,
    largest: values.filter(Number.isFinite).reduce((most, value) => Math.max(most, Math.abs(value)), 0),
    tokens: run?.tokens.length === length ? run.tokens : null,
    layers: 1,
    kvHeads: null,
    windowOf: () => null,
    firstKey: () => 0,
    lastKey: () => length - 1,
    hasPattern: () => true,
    hasSinks: () => false,
    sinks: null,
  }; // prettier-ignore
}
