/**
 * What a layer is, and what is missing of it, in words.
 */

import { make } from "../elements.js";
import { ON } from "./head_shares.js";
import { PATTERN, SINKS } from "./patterns.js";

/** Such as "2: sliding, window 32". */
export function nameLayer({ windowOf, hasPattern, hasSinks }, layer) {
  const window = windowOf(layer);
  const sliding = window === undefined ? "window unknown" : `sliding, window ${window}`;
  const kind = `${layer}: ${window === null ? "full" : sliding}`;
  if (hasPattern(layer)) return kind;
  return `${kind}, ${hasSinks(layer) ? "only sink shares" : "not recorded"}`;
}

/** One sentence about the layer and its heads. */
export function describeLayer(patterns, layer, shares) {
  const { name, unit, heads, tokens, length, run } = patterns;
  if (unit !== null) {
    const unnamed = tokens ? "" : ` No run with ${length} tokens is shown, so positions are numbers.`;
    return `${unit ? `${name}, in ${unit}` : name}: ${heads} heads.${unnamed}`;
  }
  const rule = `A head is on if it gives tokens more than ${ON} of its attention (1 − mean sink share)`;
  const count = shares ? `: ${shares.filter(({ isOn }) => isOn).length} of ${heads} are on` : "";
  const gap = run.missing ? ` What is missing is left out of the means: ${run.missing}.` : "";
  return `Layer ${nameLayer(patterns, layer)}. ${rule}${count}.${gap}`;
}

/** What a source lacks, and how to record it; null if it has the pattern. */
export function explainMissing({ hasPattern, hasSinks }, layer, source) {
  if (hasPattern(layer)) return null;
  const points = hasSinks(layer) ? [PATTERN] : [PATTERN, SINKS];
  const names = points.map((point) => `"${point}"`).join(", ");
  const call = `lab.trace(reply, [${names}], layers=[${layer}])`;
  const what = `${source.name} has no ${points.join(" and no ")} of layer ${layer}.`;
  return make("p", {}, `${what} Record it with `, make("code", {}, call), ".");
}
