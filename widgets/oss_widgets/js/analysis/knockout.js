/**
 * Knock-outs: does a token's prediction change if one of its expert slots contributes nothing?
 *
 * The earlier tokens stay as they are, so their keys and values are computed once. Only this token is
 * changed, not the ones before it. In most replies most tokens do not depend on any single slot: show
 * the margin too, which moves before the likeliest token changes.
 *
 * A change needs something to be compared with. The other slots of the token are in the same result.
 * `swapped` replaces the expert of a slot by one that the token did not choose, drawn at random, and
 * keeps the weight: a slot that needs its own expert changes more when swapped than one that does not.
 *
 * @typedef {object} KnockOut
 * @property {number} logprob  of the token that followed, unchanged
 * @property {number} margin  its logit minus the best other one, unchanged
 * @property {Float32Array} logprobChanges  [layer slot], after each knock-out minus unchanged
 * @property {Float32Array} marginChanges  [layer slot], the same for the margin
 * @property {Int32Array} likeliest  [layer slot], the likeliest token after each knock-out
 * @property {Int32Array} expertIds  [layer slot], what the token chose
 * @property {Float32Array} routerMargins  [layer], router logit of the last chosen expert minus that
 *   of the best one not chosen
 * @property {{expertIds: Int32Array, logprobChanges: Float32Array, marginChanges: Float32Array}}
 *   swapped  [layer slot], with the experts that were put in
 */

import { argmax, logSoftmax, topIds } from "../engine/logprobs.js";
import { RandomStream } from "../engine/random.js";
import { LabError } from "../errors.js";
import { RepeatedToken } from "./repeated_token.js";

/**
 * Knock out and swap each slot at the position before `at`; look at the prediction of tokens[at].
 * @param {import("../model/transformer.js").Transformer} model
 * @param {import("../engine/cache.js").KVCache} cache  of exactly the tokens before at - 1; stays so
 * @param {number[]} tokens
 * @param {number} at  1 or more
 * @param {import("../model/hook.js").Hooks} [hooks]  the interventions in force there
 * @returns {KnockOut}
 */
export function knockOutSlots(model, cache, tokens, at, hooks) {
  checkPredicted(at, tokens.length - 1);
  const token = new RepeatedToken(model, cache, tokens[at - 1], hooks);
  const expertIds = Int32Array.from(token.values.flatMap((each) => [...each["moe.expert_ids"]]));
  const unchanged = measure(token.logits, tokens[at]);
  const changesUnder = (change) => compare(model, tokens[at], unchanged, change);
  const random = new RandomStream(at); // the same experts at every call
  const strangers = expertIds.map((_, n) => drawStranger(token, n, random));
  const swapped = changesUnder((layer, slot, n) => swapExpert(token, layer, slot, strangers[n]));
  return {
    ...unchanged,
    ...changesUnder((layer, slot) => knockOutSlot(token, layer, slot)),
    expertIds,
    routerMargins: Float32Array.from(token.values, routerMargin),
    swapped: { ...swapped, expertIds: strangers },
  };
}

/**
 * The largest change of the log-probability of tokens[at] by a knock-out of any slot, nats.
 * Parameters as for `knockOutSlots`.
 */
export function findLargestChange(model, cache, tokens, at, hooks) {
  checkPredicted(at, tokens.length - 1);
  const token = new RepeatedToken(model, cache, tokens[at - 1], hooks);
  const unchanged = measure(token.logits, tokens[at]);
  const change = (layer, slot) => knockOutSlot(token, layer, slot);
  const { logprobChanges } = compare(model, tokens[at], unchanged, change);
  return logprobChanges.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** Throws LabError unless a token precedes position `at`, and `at` is not larger than `last`. */
export function checkPredicted(at, last) {
  if (!(Number.isInteger(at) && 1 <= at && at <= last)) {
    throw new LabError(`nothing predicts position ${at} here; choose one from 1 to ${last}`);
  }
}

/** The changes of a prediction from `unchanged` to the logits of `change(layer, slot, n)`. */
function compare({ config, blocks }, target, unchanged, change) {
  const slots = config.experts_per_token;
  const count = blocks.length * slots;
  const logprobChanges = new Float32Array(count);
  const marginChanges = new Float32Array(count);
  const likeliest = new Int32Array(count);
  for (let n = 0; n < count; n++) {
    const layer = Math.floor(n / slots);
    const logits = change(layer, n % slots, n);
    const { logprob, margin } = measure(logits, target);
    logprobChanges[n] = logprob - unchanged.logprob;
    marginChanges[n] = margin - unchanged.margin;
    likeliest[n] = argmax(logits);
  }
  return { logprobChanges, marginChanges, likeliest };
}

/** The logits if the output of a slot has weight 0. */
export function knockOutSlot(token, layer, slot) {
  const weights = token.values[layer]["moe.expert_weights"].slice();
  weights[slot] = 0;
  return token.reweigh(layer, weights);
}

/** The logits with another expert in a slot, and all weights kept. */
export function swapExpert(token, layer, slot, expert) {
  const weights = token.values[layer]["moe.expert_weights"];
  return token.repeat(layer, (point, at, x) => {
    if (at !== layer) return;
    if (point === "moe.expert_ids") x[slot] = expert;
    if (point === "moe.expert_weights") x.set(weights);
  });
}

/** An expert that the token did not choose in the layer of slot `n`. */
function drawStranger({ values, model }, n, random) {
  const { num_experts: experts, experts_per_token: slots } = model.config;
  const chosen = values[Math.floor(n / slots)]["moe.expert_ids"];
  const others = Array.from({ length: experts }, (_, id) => id).filter((id) => !chosen.includes(id));
  return others.length ? others[Math.floor(random.uniform() * others.length)] : chosen[n % slots];
}

function routerMargin({ "moe.router_logits": logits, "moe.expert_ids": ids }) {
  const best = topIds(logits, ids.length + 1);
  return ids.length < best.length ? logits[best[ids.length - 1]] - logits[best[ids.length]] : Infinity;
}

function measure(logits, target) {
  return { logprob: logSoftmax(logits)[target], margin: marginOf(logits, target) };
}

/** How far a token's logit is above the best other one; negative if another is likelier. */
function marginOf(logits, token) {
  let best = -Infinity;
  logits.forEach((logit, id) => {
    if (id !== token) best = Math.max(best, logit);
  });
  return logits[token] - best;
}
