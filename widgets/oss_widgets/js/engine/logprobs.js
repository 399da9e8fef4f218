/** Log-probabilities in nats, computed in double precision. */

/**
 * The log of the softmax of logits.
 * @param {Float32Array} logits  [vocab]
 * @returns {Float64Array}  [vocab]
 */
export function logSoftmax(logits) {
  let largest = -Infinity;
  for (const logit of logits) largest = Math.max(largest, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  const normalizer = largest + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - normalizer);
}

/** The id with the largest value; of equal ones, the lowest. */
export function argmax(values) {
  let best = 0;
  for (let id = 1; id < values.length; id++) if (values[id] > values[best]) best = id;
  return best;
}

/** The `count` ids with the largest values, largest first; of equal ones, the lower id first. */
export function topIds(values, count) {
  const ids = Array.from(values, (_, id) => id);
  return ids.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}
