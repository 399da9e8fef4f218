/**
 * Knock-outs: does a token's prediction change if one of its expert slots contributes nothing?
 *
 * The earlier tokens stay as they are, so their keys and values are computed once. Each slot needs
 * one forward pass of a single token over a forked cache. Only this token is changed, not the ones
 * before it. In most replies most tokens do not depend on any single slot: show the margin too,
 * which moves before the likeliest token changes.
 *
 * @typedef {object} KnockOut
 * @property {number} logprob  of the token that followed, unchanged
 * @property {number} margin  its logit minus the best other one, unchanged
 * @property {Float32Array} logprobChanges  [layer slot], after each knock-out minus unchanged
 * @property {Float32Array} marginChanges  [layer slot], the same for the margin
 * @property {Int32Array} likeliest  [layer slot], the likeliest token after each knock-out
 */

import { argmax, logSoftmax } from "../engine/logprobs.js";
import { LabError } from "../errors.js";
import { makeHooks } from "../hooks/interventions.js";

/**
 * Knock out each slot at the position before `at`, and look at the prediction of tokens[at].
 * @param {import("../model/transformer.js").Transformer} model
 * @param {import("../engine/cache.js").KVCache} cache  of tokens 0 to at - 2 or more; not changed
 * @param {number[]} tokens
 * @param {number} at  1 or more
 * @returns {KnockOut}
 */
export function knockOutSlots(model, cache, tokens, at) {
  const { num_hidden_layers: layers, experts_per_token: slots } = model.config;
  if (!(at >= 1 && at < tokens.length)) throw new LabError(`no token precedes position ${at}`);
  const fork = cache.fork(at - 1);
  const unchanged = model.forward([tokens[at - 1]], fork);
  const logprob = logSoftmax(unchanged)[tokens[at]];
  const margin = marginOf(unchanged, tokens[at]);
  const result = {
    logprob,
    margin,
    logprobChanges: new Float32Array(layers * slots),
    marginChanges: new Float32Array(layers * slots),
    likeliest: new Int32Array(layers * slots),
  };
  for (let layer = 0; layer < layers; layer++) {
    for (let slot = 0; slot < slots; slot++) {
      const n = layer * slots + slot;
      fork.truncate(at - 1);
      const logits = knockOutLogits(model, fork, tokens[at - 1], layer, slot);
      result.logprobChanges[n] = logSoftmax(logits)[tokens[at]] - logprob;
      result.marginChanges[n] = marginOf(logits, tokens[at]) - margin;
      result.likeliest[n] = argmax(logits);
    }
  }
  return result;
}

/**
 * The logits after one more token, with one of its slots knocked out. Adds the token to the cache.
 * @returns {Float32Array}  [vocab]
 */
export function knockOutLogits(model, cache, token, layer, slot) {
  const { hooks } = makeHooks(model.config, [{ kind: "AblateSlot", layer, slot }]);
  return model.forward([token], cache, { hooks });
}

/** How far a token's logit is above the best other one; negative if another is likelier. */
export function marginOf(logits, token) {
  let best = -Infinity;
  logits.forEach((logit, id) => {
    if (id !== token) best = Math.max(best, logit);
  });
  return logits[token] - best;
}
