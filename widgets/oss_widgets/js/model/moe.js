/**
 * The mixture of experts: many small networks, of which each token uses a few.
 *
 * A router computes one logit per expert and chooses the experts with the largest ones, 4 of 32 in
 * nano. A softmax over the chosen logits alone gives their weights, which sum to one. An expert has
 * two matrices: the first computes gate and up, which the activation combines, and the second
 * projects the result back to the hidden size. The sum of the experts' outputs, each times its
 * weight, is added to the residual stream.
 */

import { PackedExperts } from "./experts.js";
import { linear } from "./linear.js";
import { rmsNorm } from "./norm.js";

/** The experts of one layer. Its scratch arrays are used again for every token. */
export class MixtureOfExperts {
  /**
   * @param {import("./config.js").ModelConfig} config
   * @param {(name: string, shape: number[]) => Float32Array | Uint8Array} take
   */
  constructor(config, take) {
    const { hidden_size: hidden, intermediate_size: width, num_experts: experts } = config;
    const slots = config.experts_per_token;
    const packed = (name, rows, columns) => {
      const groups = columns / 32;
      const blocks = take(`${name}.blocks`, [experts, rows, groups, 16]);
      return new PackedExperts(blocks, take(`${name}.scales`, [experts, rows, groups]), experts);
    };
    this.config = config;
    this.normScale = take("mlp.norm.scale", [hidden]);
    this.routerWeight = take("mlp.gate.weight", [experts, hidden]); // not the gate of an expert
    this.routerBias = take("mlp.gate.bias", [experts]);
    this.mlp1Weight = packed("mlp.mlp1_weight", 2 * width, hidden);
    this.mlp1Bias = take("mlp.mlp1_bias", [experts, 2 * width]);
    this.mlp2Weight = packed("mlp.mlp2_weight", hidden, width);
    this.mlp2Bias = take("mlp.mlp2_bias", [experts, hidden]);
    this.normed = new Float32Array(hidden);
    this.routerLogits = new Float32Array(experts);
    this.ids = new Int32Array(slots);
    this.weights = new Float32Array(slots);
    this.gateUp = new Float32Array(2 * width);
    this.gate = new Float32Array(slots * width); // [slot width]
    this.up = new Float32Array(slots * width);
    this.act = new Float32Array(slots * width);
    this.expertOut = new Float32Array(slots * hidden); // [slot hidden]
    this.out = new Float32Array(hidden);
  }

  /**
   * What the experts add to the residual stream `x` of one token.
   * @param {Float32Array} x  [hidden]
   * @param {import("./hook.js").LayerHook} hook
   * @returns {Float32Array}  [hidden]
   */
  forward(x, hook) {
    const { swiglu_alpha: alpha, swiglu_limit: limit, intermediate_size: width } = this.config;
    const { ids, weights, gate, up, act, expertOut } = this;
    const hidden = x.length;
    hook("moe.norm", rmsNorm(this.normed, x, this.normScale, this.config.rms_norm_eps));
    linear(this.routerLogits, this.routerWeight, this.normed, this.routerBias);
    hook("moe.router_logits", this.routerLogits);
    hook("moe.expert_ids", chooseExperts(ids, this.routerLogits));
    hook("moe.expert_weights", weighExperts(weights, this.routerLogits, ids));

    ids.forEach((expert, slot) => {
      const bias = this.mlp1Bias.subarray(expert * 2 * width, (expert + 1) * 2 * width);
      linear(this.gateUp, this.mlp1Weight.matrix(expert), this.normed, bias);
      for (let n = 0; n < width; n++) {
        // The rows of the first matrix alternate: gate, up, gate, up, ...
        gate[slot * width + n] = this.gateUp[2 * n];
        up[slot * width + n] = this.gateUp[2 * n + 1];
      }
    });
    hook("moe.gate", gate);
    hook("moe.up", up);
    hook("moe.act", clampedSwiglu(act, gate, up, alpha, limit));
    ids.forEach((expert, slot) => {
      const bias = this.mlp2Bias.subarray(expert * hidden, (expert + 1) * hidden);
      const inputs = act.subarray(slot * width, (slot + 1) * width);
      const outputs = expertOut.subarray(slot * hidden, (slot + 1) * hidden);
      linear(outputs, this.mlp2Weight.matrix(expert), inputs, bias);
    });
    hook("moe.expert_out", expertOut);
    hook("moe.out", sumByWeight(this.out, expertOut, weights));
    return this.out;
  }
}

/**
 * ids = the experts with the largest logits, largest first; of equal ones, the lower id first.
 * @param {Int32Array} ids  [slot], written
 * @param {Float32Array} routerLogits  [expert]
 * @returns {Int32Array}  `ids`
 */
function chooseExperts(ids, routerLogits) {
  for (let slot = 0; slot < ids.length; slot++) {
    const chosen = ids.subarray(0, slot);
    let best = -1;
    for (let expert = 0; expert < routerLogits.length; expert++) {
      if (chosen.includes(expert)) continue;
      if (best < 0 || routerLogits[expert] > routerLogits[best]) best = expert;
    }
    ids[slot] = best;
  }
  return ids;
}

/**
 * weights = a softmax over the logits of the chosen experts only, which sums to one.
 * @param {Float32Array} weights  [slot], written
 * @param {Float32Array} routerLogits  [expert]
 * @param {Int32Array} ids  [slot]
 * @returns {Float32Array}  `weights`
 */
function weighExperts(weights, routerLogits, ids) {
  const largest = ids.reduce((most, expert) => Math.max(most, routerLogits[expert]), -Infinity);
  let sum = 0;
  ids.forEach((expert, slot) => (sum += weights[slot] = Math.exp(routerLogits[expert] - largest)));
  for (let slot = 0; slot < weights.length; slot++) weights[slot] /= sum;
  return weights;
}

/**
 * act = g * sigmoid(alpha * g) * (u + 1) with g = min(gate, limit), u = clamp(up, -limit, limit).
 * The gate is clamped from above only: a very negative gate gives almost 0.
 * @returns {Float32Array}  `act`, of any shape
 */
function clampedSwiglu(act, gate, up, alpha, limit) {
  for (let n = 0; n < act.length; n++) {
    const g = Math.min(gate[n], limit);
    const u = Math.max(-limit, Math.min(up[n], limit));
    act[n] = (g / (1 + Math.exp(-alpha * g))) * (u + 1);
  }
  return act;
}

/** out = the sum of the experts' outputs, each times its weight. */
export function sumByWeight(out, expertOut, weights) {
  for (let n = 0; n < out.length; n++) {
    let sum = 0;
    for (let slot = 0; slot < weights.length; slot++) {
      sum += weights[slot] * expertOut[slot * out.length + n];
    }
    out[n] = sum;
  }
  return out;
}
