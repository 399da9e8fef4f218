/**
 * The analyses of LiveSource: each takes a run and its options, as `source.js` defines them.
 */

import { readBlock } from "../analysis/block.js";
import { flipBit } from "../analysis/flip_bit.js";
import { checkPredicted, findLargestChange, knockOutSlots } from "../analysis/knockout.js";
import { lens } from "../analysis/lens.js";
import { Pauses } from "../engine/generate.js";
import { logSoftmax, topIds } from "../engine/logprobs.js";
import { LabError } from "../errors.js";
import { readTokens } from "./live_recording.js";

const LISTED = 5;

/** @type {Record<string, (run: import("./live_run.js").LiveRun, options: object) => Promise<object>>} */
export const ANALYSES = { knockOut, knockOutMarks, lens: readLens, block: showBlock, flipBit: flip };

async function knockOut(run, { at }) {
  checkPredicted(at, run.tokens.length - 1);
  const cache = await readBefore(run, at - 1);
  return knockOutSlots(run.source.model, cache, listIds(run), at, run.makeHooks());
}

/**
 * The largest change at every generated token; NaN at the others. Takes a few milliseconds per token,
 * with turns for the page. What was computed is kept, also for a call after the run has grown.
 */
async function knockOutMarks(run, { signal, onProgress } = {}) {
  const largest = new Float32Array(run.tokens.length).fill(NaN);
  const ids = listIds(run);
  const pauses = new Pauses();
  try {
    for (let at = run.promptLength; at < ids.length && !signal?.aborted; at++) {
      if (run.marks[at] === undefined) {
        const cache = await readBefore(run, at - 1);
        run.marks[at] = findLargestChange(run.source.model, cache, ids, at, run.makeHooks());
      }
      largest[at] = run.marks[at];
      if (pauses.isDue) onProgress?.(largest);
      await pauses.whenDue();
    }
  } finally {
    pauses.close();
  }
  return { largest };
}

/** By default of every token that has a next one. */
async function readLens(run, { from = 0, to = Infinity, top = LISTED } = {}) {
  const { model, tokenizer } = run.source;
  const end = Math.min(to, run.tokens.length - 1);
  if (!(from < end)) throw new LabError(`no token follows position ${from}`);
  const targets = listIds(run).slice(from + 1, end + 1);
  const range = { from, to: end };
  const { resids, logits } = await run.recording.readLens(run, range);
  const cells = lens(model, resids, logits, targets, top);
  for (const cell of cells.flat()) cell.topTexts = cell.topIds.map((id) => tokenizer.decode([id]));
  return cells;
}

async function showBlock(run, place) {
  return readBlock(run.source.model, place);
}

async function flip(run, { place, bit, at }) {
  checkPredicted(at, run.tokens.length);
  const { model, tokenizer } = run.source;
  const ids = listIds(run).slice(0, at);
  const { before, after, ...found } = await flipBit(model, ids, place, bit, run.makeHooks());
  const list = (logits) => {
    const logprobs = logSoftmax(logits);
    const best = topIds(logprobs, LISTED);
    return best.map((id) => ({ id, text: tokenizer.decode([id]), logprob: logprobs[id] }));
  };
  return { ...found, before: list(before), after: list(after) };
}

function listIds(run) {
  return run.tokens.map(({ id }) => id);
}

/** A cache of the tokens before a position. */
async function readBefore(run, position) {
  const cache = run.cache.fork(Math.min(position, run.cache.length));
  await readTokens(run, cache, position);
  return cache;
}
