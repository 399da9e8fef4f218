/**
 * One token, read again and again with one change at a time.
 *
 * A change in one layer leaves the earlier layers as they are. So the residual stream before every
 * layer is kept from the first reading, and a repetition starts at the changed layer. Nothing is added
 * to the cache.
 */

import { chainHooks, noHooks } from "../model/hook.js";

export class RepeatedToken {
  /**
   * @param {import("../model/transformer.js").Transformer} model
   * @param {import("../engine/cache.js").KVCache} cache  of the tokens before it
   * @param {number} token
   * @param {import("../model/hook.js").Hooks} [hooks]  apply to every repetition
   */
  constructor(model, cache, token, hooks = noHooks) {
    Object.assign(this, { model, cache, token, hooks });
    /** The residual stream before each layer, before any hook. */
    this.resid = [];
    /** Values of each layer after the hooks, by point. */
    this.values = model.blocks.map(() => ({}));
    const keepResid = (point, layer, x) => {
      if (point === "resid.pre") this.resid[layer] = x.slice();
    };
    const keepValues = (point, layer, x) => {
      if (point.startsWith("moe.")) this.values[layer][point] = x.slice();
    };
    /** Logits without a change, [vocab]. */
    this.logits = model.forward([token], cache, { hooks: chainHooks(keepResid, hooks, keepValues) });
    cache.truncate(cache.length - 1);
  }

  /**
   * The logits with a change in one layer.
   * @param {number} layer
   * @param {import("../model/hook.js").Hooks} change
   * @returns {Float32Array}  [vocab]
   */
  repeat(layer, change) {
    const hooks = chainHooks(this.hooks, change);
    return this.model.repeatFrom(layer, this.resid[layer], this.token, this.cache, hooks);
  }
}
