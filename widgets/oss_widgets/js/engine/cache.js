/**
 * The KV cache: keys and values of earlier tokens. It can be extended, truncated and forked.
 *
 * A token's keys and values do not change when more tokens follow, so they are computed once. A
 * fork continues one beginning in another way. It copies the keys, 1,024 bytes per token in nano;
 * the Python cache shares them instead.
 */

import { LabError } from "../errors.js";

const GROWTH = 256; // a buffer grows by at least this many tokens

/** The cache of one sequence. `length` is its number of tokens. */
export class KVCache {
  /** @param {import("../model/config.js").ModelConfig} config */
  constructor(config) {
    this.config = config;
    this.length = 0;
    this.width = config.num_key_value_heads * config.head_dim;
    /** Of each layer, [position kv_head head_dim]. */
    this.layers = Array.from({ length: config.num_hidden_layers }, () => ({
      keys: new Float32Array(0),
      values: new Float32Array(0),
    }));
  }

  /**
   * Store a layer's key and value of the next token; return those of all tokens.
   * They count only after `advance`, so an interrupted forward pass leaves nothing.
   * @param {number} layer
   * @param {Float32Array} k  [kv_head head_dim]
   * @param {Float32Array} v  [kv_head head_dim]
   */
  extend(layer, k, v) {
    const stored = this.layers[layer];
    const begin = this.length * this.width;
    if (begin + this.width > stored.keys.length) {
      const tokens = Math.max(this.length + GROWTH, 2 * this.length);
      stored.keys = copyInto(new Float32Array(tokens * this.width), stored.keys, begin);
      stored.values = copyInto(new Float32Array(tokens * this.width), stored.values, begin);
    }
    stored.keys.set(k, begin);
    stored.values.set(v, begin);
    return stored;
  }

  /** Add one token to `length`: it is now stored in every layer. */
  advance() {
    this.length += 1;
  }

  /** Drop everything after the first `length` tokens. */
  truncate(length) {
    if (!(Number.isInteger(length) && 0 <= length && length <= this.length)) {
      throw new LabError(`cannot truncate a cache of ${this.length} tokens to ${length}`);
    }
    this.length = length;
  }

  /**
   * A cache that continues from here, or from an earlier length.
   * @param {number} at
   * @returns {KVCache}
   */
  fork(at = this.length) {
    if (!(Number.isInteger(at) && 0 <= at && at <= this.length)) {
      throw new LabError(`cannot fork a cache of ${this.length} tokens at ${at}`);
    }
    const child = new KVCache(this.config);
    const used = at * this.width;
    child.length = at;
    child.layers = this.layers.map(({ keys, values }) => ({
      keys: keys.slice(0, used),
      values: values.slice(0, used),
    }));
    return child;
  }
}

function copyInto(target, source, count) {
  target.set(source.subarray(0, count));
  return target;
}
