/**
 * Samples the next token from its logits: temperature, filters and a random number.
 *
 * A token is drawn by inverse CDF: tokens are ordered by probability, and one uniform random number
 * selects a place in their cumulative sum. With the same random numbers, the Python sampler takes
 * the same tokens. Its random numbers come from another generator (`random.js`), so a seed gives
 * different replies here and there. At temperature 0 both are equal.
 *
 * @typedef {object} Sampling  the filters apply in this order, each to what the previous one kept
 * @property {number} [temperature]  0 takes the most likely token; 1 is the model's distribution
 * @property {number | null} [topK]  keep the k most likely tokens
 * @property {number} [topP]  keep the fewest tokens that together reach this probability
 * @property {number} [minP]  keep tokens with at least this fraction of the largest probability
 */

import { LabError } from "../errors.js";
import { argmax, topIds } from "./logprobs.js";

const FIELDS = {
  temperature: [(value) => Number.isFinite(value) && value >= 0, "0 or more"],
  topK: [(value) => value === null || (Number.isInteger(value) && value >= 1), "1 or more"],
  topP: [(value) => 0 < value && value <= 1, "above 0 and at most 1"],
  minP: [(value) => 0 <= value && value <= 1, "from 0 to 1"],
};

/**
 * The id of the next token. At temperature 0 no random number is used, otherwise exactly one.
 * @param {Float32Array} logits  [vocab]; -inf for ids that may not be generated
 * @param {Sampling} sampling
 * @param {() => number} uniform  from 0 up to but not including 1
 * @returns {number}
 */
export function sample(logits, sampling, uniform) {
  const settings = checkSampling(sampling);
  if (settings.temperature === 0) return checkPeak(logits, argmax(logits));
  const { ids, masses } = filterTokens(logits, settings);
  const place = uniform() * masses[masses.length - 1];
  const found = masses.findIndex((mass) => mass > place);
  return found < 0 ? ids[ids.length - 1] : ids[found];
}

/**
 * The ids that pass the filters, most likely first, and their cumulative weights (the first is 1).
 * @param {Float32Array} logits  [vocab]
 * @param {Sampling} sampling  with a temperature above 0
 * @returns {{ids: number[], masses: number[]}}
 */
export function filterTokens(logits, sampling) {
  const { temperature, topK, topP, minP } = checkSampling(sampling);
  const ids = topIds(logits, logits.length);
  const largest = logits[checkPeak(logits, ids[0])];
  const weights = ids.map((id) => Math.exp((logits[id] - largest) / temperature));
  let sum = 0;
  const masses = weights.map((weight) => (sum += weight));
  let count = Math.min(topK ?? ids.length, ids.length);
  if (topP < 1) {
    // The token that reaches top_p is kept too, so at least one remains.
    const target = topP * masses[count - 1];
    count = Math.min(count, masses.findIndex((mass) => mass >= target) + 1);
  }
  count = Math.min(count, weights.filter((weight) => weight >= minP && weight > 0).length);
  return { ids: ids.slice(0, count), masses: masses.slice(0, count) };
}

/** The settings with their defaults; throws LabError for one that is out of range or unknown. */
export function checkSampling(sampling) {
  const settings = { temperature: 1, topK: null, topP: 1, minP: 0, ...sampling };
  for (const [name, value] of Object.entries(settings)) {
    if (!Object.hasOwn(FIELDS, name)) {
      throw new LabError(`unknown setting ${name}; use ${Object.keys(FIELDS).join(", ")}`);
    }
    const [fits, bounds] = FIELDS[name];
    if (!fits(value)) throw new LabError(`${name} is ${value}; it must be ${bounds}`);
  }
  return settings;
}

function checkPeak(logits, best) {
  if (logits.some(Number.isNaN) || !Number.isFinite(logits[best])) {
    throw new LabError("the logits are not finite; the weights or an intervention caused it");
  }
  return best;
}
