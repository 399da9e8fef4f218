/**
 * The configuration of a model: the fields of its `config.json`, under the same names.
 *
 * @typedef {object} ModelConfig
 * @property {number} num_hidden_layers
 * @property {number} num_experts
 * @property {number} experts_per_token
 * @property {number} vocab_size
 * @property {number} hidden_size
 * @property {number} intermediate_size
 * @property {number} head_dim
 * @property {number} num_attention_heads
 * @property {number} num_key_value_heads
 * @property {number} sliding_window  keys that a sliding layer sees, the query's own included
 * @property {number} initial_context_length
 * @property {number} rope_theta
 * @property {number} rope_scaling_factor
 * @property {number} rope_ntk_alpha
 * @property {number} rope_ntk_beta
 * @property {number} swiglu_limit
 * @property {number} swiglu_alpha  a constant of the architecture, not in the file
 * @property {number} rms_norm_eps  the same
 * @property {string[]} layer_types  "sliding_attention" or "full_attention" for each layer
 */

import { LabError } from "../errors.js";

const NUMBERS = [
  "num_hidden_layers",
  "num_experts",
  "experts_per_token",
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "head_dim",
  "num_attention_heads",
  "num_key_value_heads",
  "sliding_window",
  "initial_context_length",
  "rope_theta",
  "rope_scaling_factor",
  "rope_ntk_alpha",
  "rope_ntk_beta",
  "swiglu_limit",
];

/**
 * The configuration in a parsed `config.json`, completed with the constants.
 * Throws LabError if a field is missing: no field has a silent default.
 * @param {object} fields
 * @returns {ModelConfig}
 */
export function readConfig(fields) {
  for (const name of NUMBERS) {
    if (typeof fields[name] !== "number") throw new LabError(`config.json has no number ${name}`);
  }
  const layers = Array.from({ length: fields.num_hidden_layers }, (_, layer) =>
    layer % 2 ? "full_attention" : "sliding_attention",
  );
  return { swiglu_alpha: 1.702, rms_norm_eps: 1e-5, layer_types: layers, ...fields };
}

/**
 * How many keys a layer sees, or null if it sees all earlier ones.
 * @param {ModelConfig} config
 * @param {number} layer
 * @returns {number | null}
 */
export function windowOf(config, layer) {
  return config.layer_types[layer] === "sliding_attention" ? config.sliding_window : null;
}
