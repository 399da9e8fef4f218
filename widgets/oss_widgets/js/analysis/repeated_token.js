/**
 * One token, read again and again with one change at a time.
 *
 * A change in one layer leaves the earlier layers unchanged. So the residual stream before every layer
 * is kept from the first reading, and a repetition starts at the changed layer. Nothing is added to
 * the cache.
 */

import { chainHooks, inLayer, noHooks } from "../model/hook.js";
import { sumByWeight } from "../model/moe.js";

const KEPT = new Set([
  "resid.mid", "moe.router_logits", "moe.expert_ids", "moe.expert_weights", "moe.expert_out",
]);

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
    /** The values of `KEPT` in each layer, after the hooks. */
    this.values = model.blocks.map(() => ({}));
    const keepResid = (point, layer, x) => {
      if (point === "resid.pre") this.resid[layer] = x.slice();
    };
    const keepValues = (point, layer, x) => {
      if (KEPT.has(point)) this.values[layer][point] = x.slice();
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

  /**
   * The logits with other weights in one layer. Its experts' outputs stay the same, so it starts after
   * them.
   * @param {number} layer
   * @param {Float32Array} weights  [slot]
   * @returns {Float32Array}  [vocab]
   */
  reweigh(layer, weights) {
    const { model, token, cache, hooks } = this;
    const values = this.values[layer];
    const hook = inLayer(hooks, layer, { position: cache.length, token, firstKey: 0 });
    const out = sumByWeight(new Float32Array(model.config.hidden_size), values["moe.expert_out"], weights);
    hook("moe.out", out);
    const x = values["resid.mid"].map((value, n) => value + out[n]);
    hook("resid.post", x);
    return model.repeatFrom(layer + 1, x, token, cache, hooks);
  }
}
