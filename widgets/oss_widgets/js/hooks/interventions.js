/**
 * Interventions: small objects that name a place in the forward pass and a change to it.
 *
 *     { kind: "AblateExpert", layer: 2, expert: 7 }
 *
 * Kinds and fields are those of `oss_lab/hooks/interventions`. `layer`, `head` and `expert` are an
 * integer, a list or "all". `positions` limits a change to some tokens, but not of sinks and keys.
 */

import { checkIntervention } from "./intervention_checks.js";
import { KINDS, listNumbers } from "./intervention_kinds.js";

/** @typedef {{kind: string, layer: number | number[] | "all"} & object} Intervention */

/**
 * Hooks that apply interventions, in order, and count at how many values each changed something.
 * Throws LabError for an unknown kind, a missing field, or a number that the model does not have.
 * @param {import("../model/config.js").ModelConfig} config
 * @param {Intervention[]} interventions
 * @returns {{hooks: import("../model/hook.js").Hooks, changed: number[]}}
 */
export function makeHooks(config, interventions) {
  interventions.forEach((spec) => checkIntervention(config, spec));
  const changed = interventions.map(() => 0);
  const place = { heads: config.num_attention_heads, experts: config.num_experts, earlier: {} };
  const hooks = (point, layer, x, here) => {
    interventions.forEach((spec, n) => {
      const { writes, apply } = KINDS[spec.kind];
      if (point !== (typeof writes === "string" ? writes : writes(spec))) return;
      const isHere = layer === null || listNumbers(spec.layer, config.num_hidden_layers).includes(layer);
      if (!isHere) return;
      if (spec.positions != null && !listNumbers(spec.positions).includes(here.position)) return;
      const before = x.slice();
      apply(x, spec, { ...place, here });
      if (x.some((value, at) => value !== before[at])) changed[n] += 1;
    });
    place.earlier[point] = x;
  };
  return { hooks, changed };
}
