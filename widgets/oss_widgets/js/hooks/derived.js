/**
 * Functions for the points that are computed from other points.
 *
 * Each takes the model, the layer and the recorded sources, and returns the flat array of the
 * derived point, with the tokens first.
 */

import { logSoftmax, topIds } from "../engine/logprobs.js";
import { RANKS } from "./points.js";

/** The rows of a flat array, as views. */
export function splitRows(data, width) {
  return Array.from({ length: data.length / width }, (_, row) =>
    data.subarray(row * width, (row + 1) * width),
  );
}

/** `attn.lse`: log of the sum of exp(score) over all keys and the sink. */
function lse(model, layer, scores, sinks) {
  const [, heads, keys] = scores.shape;
  return Float32Array.from(splitRows(scores.data, keys), (row, n) => {
    const sink = sinks.data[n % heads];
    const largest = row.reduce((most, score) => Math.max(most, score), sink);
    const sum = row.reduce((total, score) => total + Math.exp(score - largest), 0);
    return largest + Math.log(sum + Math.exp(sink - largest));
  });
}

/** `attn.head_out`: its sum over heads, plus the bias, is `attn.out`. */
function headOut(model, layer, z) {
  const [seq, heads, headDim] = z.shape;
  const { outWeight } = model.blocks[layer].attention; // [hidden, head * head_dim]
  const hidden = model.config.hidden_size;
  const out = new Float32Array(seq * heads * hidden);
  splitRows(z.data, headDim).forEach((row, n) => {
    const head = n % heads;
    for (let at = 0; at < hidden; at++) {
      const columns = (at * heads + head) * headDim;
      out[n * hidden + at] = row.reduce((sum, value, k) => sum + value * outWeight[columns + k], 0);
    }
  });
  return out;
}

/** `moe.margin`: how much the last chosen expert was better than the best one not chosen. */
function margin(model, layer, routerLogits) {
  const { num_experts: experts, experts_per_token: slots } = model.config;
  return Float32Array.from(splitRows(routerLogits.data, experts), (row) => {
    const best = topIds(row, slots + 1);
    return slots === experts ? Infinity : row[best[slots - 1]] - row[best[slots]];
  });
}

/** `moe.entropy`: of the softmax over all router logits; a banned expert adds 0. */
function entropy(model, layer, routerLogits) {
  return Float32Array.from(splitRows(routerLogits.data, model.config.num_experts), (row) =>
    logSoftmax(row).reduce((sum, x) => (x === -Infinity ? sum : sum - x * Math.exp(x)), 0),
  );
}

/** `out.layer_logits`: the final norm and the unembedding applied after an earlier layer. */
export function layerLogits(model, layer, resid) {
  const { hidden_size: hidden, vocab_size: vocab } = model.config;
  const rows = splitRows(resid.data, hidden);
  const logits = new Float32Array(rows.length * vocab);
  splitRows(logits, vocab).forEach((out, row) => model.unembed(out, rows[row]));
  return logits;
}

/** `out.top_ids`. */
function mostLikelyIds(model, layer, logits) {
  const rows = splitRows(logits.data, model.config.vocab_size);
  return Int32Array.from(rows.flatMap((row) => topIds(row, RANKS)));
}

/** `out.top_logprobs`. */
function mostLikelyLogprobs(model, layer, logits) {
  const rows = splitRows(logits.data, model.config.vocab_size).map(logSoftmax);
  return Float32Array.from(rows.flatMap((row) => topIds(row, RANKS).map((id) => row[id])));
}

/** The function of each derived point. */
export const DERIVED = {
  "attn.lse": lse,
  "attn.head_out": headOut,
  "moe.margin": margin,
  "moe.entropy": entropy,
  "out.layer_logits": layerLogits,
  "out.top_ids": mostLikelyIds,
  "out.top_logprobs": mostLikelyLogprobs,
};
