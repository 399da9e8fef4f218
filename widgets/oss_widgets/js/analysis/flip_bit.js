/**
 * Flip one bit of a stored weight, read a sequence with it, and compare the prediction.
 *
 * The stored bytes are never changed. The expert's matrix is replaced by a changed copy while a single
 * token is read, and put back before the page gets its turn, also after an error.
 */

import { KVCache } from "../engine/cache.js";
import { Pauses } from "../engine/generate.js";
import { LabError } from "../errors.js";
import { chainHooks } from "../model/hook.js";
import { findGroup, makeBlock, readBlock } from "./block.js";

const NIBBLE_BITS = 128; // four for each of 32 weights; the scale's eight follow
const WEIGHTS = 32;

/**
 * The prediction after the last token, unchanged and with the flipped bit.
 * @param {import("../model/transformer.js").Transformer} model
 * @param {number[]} tokens
 * @param {import("../source/source.js").Place} place
 * @param {number} bit  0 to 135
 * @param {import("../model/hook.js").Hooks} hooks  the interventions in force
 * @returns {Promise<{block: import("../source/source.js").Block, outputChange: number,
 *   uses: number, before: Float32Array, after: Float32Array}>}  `uses`: how many of the tokens chose
 *   the expert; before and after: logits [vocab]
 */
export async function flipBit(model, tokens, place, bit, hooks) {
  const block = flipBlock(readBlock(model, place), bit);
  const { experts, inMatrix } = findGroup(model, place);
  const original = experts.matrix(place.expert);
  const changed = original.slice();
  changed.set(block.values, inMatrix * WEIGHTS);
  const before = await readWith(model, tokens, place, hooks, experts, original);
  const after = await readWith(model, tokens, place, hooks, experts, changed);
  if (!after.logits.every(Number.isFinite)) {
    throw new LabError("with this bit flipped, the logits are not finite; flip a lower bit");
  }
  const difference = after.out.map((value, n) => value - before.out[n]);
  return {
    block,
    outputChange: rms(difference) / rms(before.out),
    uses: before.uses,
    before: before.logits,
    after: after.logits,
  };
}

/** @returns {import("../source/source.js").Block} */
function flipBlock({ packed, scale }, bit) {
  if (!(Number.isInteger(bit) && 0 <= bit && bit < NIBBLE_BITS + 8)) {
    throw new LabError(`bit is ${bit}; a block has the bits 0 to ${NIBBLE_BITS + 7}`);
  }
  if (bit >= NIBBLE_BITS) return makeBlock(packed, scale ^ (1 << (bit - NIBBLE_BITS)));
  const flipped = packed.slice();
  flipped[bit >> 3] ^= 1 << (bit & 7);
  return makeBlock(flipped, scale);
}

/** Read the tokens with one matrix of an expert replaced. */
async function readWith(model, tokens, { layer, expert }, hooks, experts, matrix) {
  const cache = new KVCache(model.config);
  const original = experts.matrix(expert);
  const result = { uses: 0 };
  const observe = (point, at, x) => {
    if (at !== layer) return;
    if (point === "moe.expert_ids" && x.includes(expert)) result.uses += 1;
    if (point === "moe.out") result.out = x.slice();
  };
  const pauses = new Pauses();
  try {
    for (const id of tokens) {
      experts.matrices[expert] = matrix;
      try {
        result.logits = model.forward([id], cache, { hooks: chainHooks(hooks, observe) });
      } finally {
        experts.matrices[expert] = original;
      }
      await pauses.whenDue();
    }
  } finally {
    pauses.close();
  }
  return result;
}

function rms(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}
