/**
 * The hook points: every activation that can be recorded, as one table.
 *
 * The names and axes are those of `oss_lab/hooks/points.py`; a test compares the two tables. Axes
 * are those of a recording, with the tokens (seq) first.
 *
 * @typedef {object} Point
 * @property {string[]} axes
 * @property {boolean} isPerLayer  whether every layer has it
 * @property {string[]} sources  the points that it is computed from; none for those of the model
 * @property {boolean} isReadOnly  whether a change of it would have no effect
 */

import { LabError } from "../errors.js";

/** How many tokens `out.top_ids` keeps at each position. */
export const RANKS = 20;

/** @returns {Point} */
function point(axes, options = {}) {
  return { axes: axes.split(" "), isPerLayer: true, sources: [], isReadOnly: false, ...options };
}

const OUTSIDE = { isPerLayer: false };
const READ_ONLY = { isReadOnly: true };

/** Every point, in the order of the forward pass. @type {Record<string, Point>} */
export const POINTS = {
  embed: point("seq hidden", OUTSIDE),
  "resid.pre": point("seq hidden"),
  "attn.norm": point("seq hidden"),
  "attn.q": point("seq head head_dim"),
  "attn.k": point("seq kv_head head_dim"),
  "attn.v": point("seq kv_head head_dim"),
  "attn.q_rot": point("seq head head_dim"),
  "attn.k_rot": point("seq kv_head head_dim"),
  "attn.scores": point("seq head key"),
  "attn.sink": point("head"),
  "attn.pattern": point("seq head key"),
  "attn.sink_mass": point("seq head", READ_ONLY),
  "attn.lse": point("seq head", { ...READ_ONLY, sources: ["attn.scores", "attn.sink"] }),
  "attn.z": point("seq head head_dim"),
  "attn.head_out": point("seq head hidden", { ...READ_ONLY, sources: ["attn.z"] }),
  "attn.out": point("seq hidden"),
  "resid.mid": point("seq hidden"),
  "moe.norm": point("seq hidden"),
  "moe.router_logits": point("seq expert"),
  "moe.expert_ids": point("seq slot"),
  "moe.expert_weights": point("seq slot"),
  "moe.margin": point("seq", { ...READ_ONLY, sources: ["moe.router_logits"] }),
  "moe.entropy": point("seq", { ...READ_ONLY, sources: ["moe.router_logits"] }),
  "moe.gate": point("seq slot width"),
  "moe.up": point("seq slot width"),
  "moe.act": point("seq slot width"),
  "moe.expert_out": point("seq slot hidden"),
  "moe.out": point("seq hidden"),
  "resid.post": point("seq hidden"),
  "out.layer_logits": point("seq vocab", { ...READ_ONLY, sources: ["resid.post"] }),
  "out.norm": point("seq hidden", OUTSIDE),
  "out.logits": point("seq vocab", OUTSIDE),
  "out.top_ids": point("seq rank", { ...OUTSIDE, ...READ_ONLY, sources: ["out.logits"] }),
  "out.top_logprobs": point("seq rank", { ...OUTSIDE, ...READ_ONLY, sources: ["out.logits"] }),
};

/** Value for keys that a sliding layer has already dropped, and for keys of later tokens. */
export const HIDDEN_KEY_VALUES = { "attn.scores": -Infinity, "attn.pattern": 0 };

/**
 * The length of an axis other than seq and key.
 * @param {string} axis
 * @param {import("../model/config.js").ModelConfig} config
 */
export function sizeOf(axis, config) {
  return {
    hidden: config.hidden_size,
    head: config.num_attention_heads,
    kv_head: config.num_key_value_heads,
    head_dim: config.head_dim,
    expert: config.num_experts,
    slot: config.experts_per_token,
    width: config.intermediate_size,
    vocab: config.vocab_size,
    rank: RANKS,
  }[axis];
}

/** The point of this name; throws LabError for an unknown one. */
export function findPoint(name) {
  if (!Object.hasOwn(POINTS, name)) throw new LabError(`unknown point ${name}`);
  return POINTS[name];
}
