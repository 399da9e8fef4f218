/**
 * Attention: how a token collects information from earlier tokens.
 *
 * In each head a token has a query (what it looks for), a key (what it is found by) and a value
 * (what it passes on). The product of a query and a key is a score. A softmax turns the scores of a
 * query into shares, its attention pattern. The head's output is the sum of the values, each times
 * its share. gpt-oss has three special features:
 *
 * - Grouped queries: several query heads share one key and value head.
 * - Sinks: each query head has one learned logit, its sink, that takes part in the softmax. It has
 *   no key, position or value. A head that finds nothing to read can give its attention to it.
 * - Sliding window: every other layer sees only the newest `sliding_window` keys.
 */

import { windowOf } from "./config.js";
import { linear } from "./linear.js";
import { rmsNorm } from "./norm.js";
import { rotate } from "./rope.js";

/** The attention of one layer. Its scratch arrays are used again for every token. */
export class Attention {
  /**
   * @param {import("./config.js").ModelConfig} config
   * @param {number} layer
   * @param {(name: string, shape: number[]) => Float32Array} take  the weights of this layer
   */
  constructor(config, layer, take) {
    const { hidden_size: hidden, num_attention_heads: heads, head_dim: headDim } = config;
    const queryWidth = heads * headDim;
    const keyWidth = config.num_key_value_heads * headDim;
    const width = queryWidth + 2 * keyWidth;
    this.eps = config.rms_norm_eps;
    this.layer = layer;
    this.window = windowOf(config, layer);
    this.normScale = take("attn.norm.scale", [hidden]);
    this.sinks = take("attn.sinks", [heads]);
    this.qkvWeight = take("attn.qkv.weight", [width, hidden]);
    this.qkvBias = take("attn.qkv.bias", [width]);
    this.outWeight = take("attn.out.weight", [hidden, queryWidth]);
    this.outBias = take("attn.out.bias", [hidden]);
    this.normed = new Float32Array(hidden);
    this.qkv = new Float32Array(width);
    this.q = this.qkv.subarray(0, queryWidth); // [head head_dim]
    this.k = this.qkv.subarray(queryWidth, queryWidth + keyWidth); // [kv_head head_dim]
    this.v = this.qkv.subarray(queryWidth + keyWidth);
    this.sinkLogits = new Float32Array(heads);
    this.sinkMass = new Float32Array(heads);
    this.scores = new Float32Array(0); // grows with the cache
    this.pattern = new Float32Array(0);
    this.z = new Float32Array(queryWidth);
    this.out = new Float32Array(hidden);
  }

  /**
   * What attention adds to the residual stream `x` of one token.
   * @param {Float32Array} x  [hidden]
   * @param {{cos: Float32Array, sin: Float32Array}} rotation
   * @param {import("../engine/cache.js").KVCache} cache
   * @param {import("./hook.js").LayerHook} hook
   * @returns {Float32Array}  [hidden]
   */
  forward(x, rotation, cache, hook) {
    hook("attn.norm", rmsNorm(this.normed, x, this.normScale, this.eps));
    linear(this.qkv, this.qkvWeight, this.normed, this.qkvBias);
    hook("attn.q", this.q);
    hook("attn.k", this.k);
    hook("attn.v", this.v);
    rotate(this.q, rotation);
    rotate(this.k, rotation);
    hook("attn.q_rot", this.q);
    hook("attn.k_rot", this.k);
    const { keys, values } = cache.extend(this.layer, this.k, this.v);

    const end = cache.length + 1;
    const { scores, pattern } = this.makeRoom(end - firstKey(cache.length, this.window));
    queryKeyScores(scores, this.q, keys, end, this.heads, this.k.length);
    hook("attn.scores", scores);
    this.sinkLogits.set(this.sinks); // a copy, since a hook may change it
    hook("attn.sink", this.sinkLogits);
    softmaxWithSink(pattern, this.sinkMass, scores, this.sinkLogits);
    hook("attn.pattern", pattern);
    hook("attn.sink_mass", this.sinkMass);

    hook("attn.z", mixValues(this.z, pattern, values, end, this.heads, this.k.length));
    hook("attn.out", linear(this.out, this.outWeight, this.z, this.outBias));
    return this.out;
  }

  get heads() {
    return this.sinks.length;
  }

  /** Scratch for the scores and the pattern, [head key] each. */
  makeRoom(keys) {
    const size = keys * this.heads;
    if (this.scores.length < size) {
      this.scores = new Float32Array(2 * size);
      this.pattern = new Float32Array(2 * size);
    }
    return { scores: this.scores.subarray(0, size), pattern: this.pattern.subarray(0, size) };
  }
}

/** Position of the oldest key that a query sees: with a window, `window` keys with its own. */
export function firstKey(position, window) {
  return window === null ? 0 : Math.max(0, position + 1 - window);
}

/**
 * scores = the product of each query and each of the newest keys, divided by sqrt(head_dim).
 * Query head j reads key head j // (heads / kv_heads).
 * @param {Float32Array} scores  [head key]; its size says how many keys are read
 * @param {Float32Array} q  [head head_dim]
 * @param {Float32Array} keys  [position kv_head head_dim], of all positions
 * @param {number} end  positions in use
 * @param {number} heads
 * @param {number} keyWidth  kv_heads * head_dim
 */
function queryKeyScores(scores, q, keys, end, heads, keyWidth) {
  const count = scores.length / heads;
  const headDim = q.length / heads;
  const group = q.length / keyWidth; // query heads for each key head
  const scale = headDim ** -0.5;
  for (let head = 0; head < heads; head++) {
    let at = (end - count) * keyWidth + Math.floor(head / group) * headDim;
    for (let key = 0; key < count; key++, at += keyWidth) {
      let sum = 0;
      for (let n = 0; n < headDim; n++) sum += q[head * headDim + n] * keys[at + n];
      scores[head * count + key] = sum * scale;
    }
  }
}

/**
 * The shares of the keys, exp(score) / (sum of exp(score) + exp(sink)), and that of the sink.
 * The sink is one more logit in the softmax: not scaled, not rotated, the same for every query.
 * @param {Float32Array} pattern  [head key], written
 * @param {Float32Array} sinkMass  [head], written
 * @param {Float32Array} scores  [head key]; -inf gives share 0
 * @param {Float32Array} sinks  [head]
 */
function softmaxWithSink(pattern, sinkMass, scores, sinks) {
  const count = scores.length / sinks.length;
  for (let head = 0; head < sinks.length; head++) {
    const begin = head * count;
    let largest = sinks[head]; // subtracted, so that no exp overflows
    for (let n = begin; n < begin + count; n++) largest = Math.max(largest, scores[n]);
    const sink = Math.exp(sinks[head] - largest);
    let sum = sink;
    for (let n = begin; n < begin + count; n++) sum += pattern[n] = Math.exp(scores[n] - largest);
    for (let n = begin; n < begin + count; n++) pattern[n] /= sum;
    sinkMass[head] = sink / sum;
  }
}

/**
 * z = the sum of the newest values, each times its share; the axes are those of `queryKeyScores`.
 * @returns {Float32Array}  `z`, [head head_dim]
 */
function mixValues(z, pattern, values, end, heads, keyWidth) {
  const count = pattern.length / heads;
  const headDim = z.length / heads;
  const group = z.length / keyWidth;
  for (let head = 0; head < heads; head++) {
    const first = (end - count) * keyWidth + Math.floor(head / group) * headDim;
    for (let n = 0; n < headDim; n++) {
      let sum = 0;
      for (let key = 0; key < count; key++) {
        sum += pattern[head * count + key] * values[first + n + key * keyWidth];
      }
      z[head * headDim + n] = sum;
    }
  }
  return z;
}
