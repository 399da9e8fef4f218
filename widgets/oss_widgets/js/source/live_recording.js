/**
 * What is recorded of a run. The cheap points are recorded while the run is generated, so a view of
 * the experts needs no second pass. All other points are computed when they are first requested, by
 * reading the tokens again with the interventions that were in force at each of them.
 *
 * A view may request points while the reply is being generated, and several at once. So a request
 * reads over its own fork of the cache, and never writes into what the generation records.
 */

import { KVCache } from "../engine/cache.js";
import { Pauses } from "../engine/generate.js";
import { findPoint } from "../hooks/points.js";
import { Recorder } from "../hooks/recorder.js";
import { chainHooks, noHooks } from "../model/hook.js";

const CHEAP = ["moe.expert_ids", "moe.expert_weights", "moe.router_logits", "attn.sink_mass"];

export class LiveRecording {
  constructor(model, recorder = new Recorder(model, CHEAP)) {
    this.model = model;
    this.recorder = recorder;
    /** With the cheap points of all tokens, also those not yet read. */
    this.whole = null;
    /** For each other point that was requested, what was read so far. @type {Map<string, Replay>} */
    this.replays = new Map();
  }

  /** Pass these to the model while it generates, from a position on. */
  hooksFrom(position) {
    this.recorder.truncate(position); // an interrupted forward pass may have left more
    return this.recorder.hooks;
  }

  /** Forget the tokens from this position on. */
  truncate(length) {
    this.recorder.truncate(length);
    this.whole = null;
    this.replays.clear();
  }

  /** The recording of a run that shares the tokens before `length`. */
  fork(length) {
    return new LiveRecording(this.model, this.recorder.fork(length));
  }

  /**
   * A point at the tokens that the run has now.
   * @param {import("./live_run.js").LiveRun} run
   * @param {{from: number, to: number} | null} range  null for all positions
   * @returns {Promise<import("./source.js").Recording>}
   */
  async get(run, name, layer, range = null) {
    const { axes, sources } = findPoint(name);
    const needed = sources.length ? sources : [name];
    const to = Math.min(range?.to ?? Infinity, run.tokens.length);
    if (needed.every((each) => CHEAP.includes(each))) {
      return cutRows((await this.readCheap(run)).get(name, layer), axes, range);
    }
    if (range) return this.readRange(run, name, layer, { from: range.from, to });
    if (!this.replays.has(name)) this.replays.set(name, new Replay(this.model, name));
    return this.replays.get(name).get(run, layer);
  }

  /** A recorder with the cheap points of every token, shared by all requests at this length. */
  readCheap(run) {
    const { length } = run.tokens;
    if (this.whole?.length !== length) {
      const recorder = this.recorder.fork(run.cache.length);
      const reading = readTokens(run, run.cache.fork(), length, recorder.hooks);
      this.whole = { length, recorder: reading.then(() => recorder) };
    }
    return this.whole.recorder;
  }

  /** Some rows only, in all layers or one. */
  async readRange(run, name, layer, range) {
    const recorder = new Recorder(this.model, [name], layer === null ? null : [layer]);
    return (await readInto(recorder, run, range)).get(name, layer);
  }

  /** What the logit lens needs of some positions. */
  async readLens(run, range) {
    const recorder = await readInto(new Recorder(this.model, ["resid.post", "out.logits"]), run, range);
    const resids = this.model.blocks.map((_, layer) => recorder.get("resid.post", layer));
    return { resids, logits: recorder.get("out.logits") };
  }
}

/** Record some positions. The cache has what earlier tokens pass on, so they are not read again. */
async function readInto(recorder, run, { from, to }) {
  const cache = run.cache.fork(Math.min(from, run.cache.length));
  await readTokens(run, cache, from);
  await readTokens(run, cache, to, recorder.hooks);
  return recorder;
}

/** One point in all layers, read from the start and continued when the run has grown. */
class Replay {
  constructor(model, name) {
    this.name = name;
    this.cache = new KVCache(model.config);
    this.recorder = new Recorder(model, [name]);
    this.reading = Promise.resolve(); // one request after the other
  }

  get(run, layer) {
    const { length } = run.tokens;
    const result = this.reading.then(async () => {
      await readTokens(run, this.cache, length, this.recorder.hooks);
      return this.recorder.get(this.name, layer);
    });
    this.reading = result.catch(() => {}); // whoever made the request gets the error
    return result;
  }
}

/**
 * Read a run's tokens from the end of `cache` up to position `to`, with the interventions in force at
 * each. Gives the page a turn between tokens.
 * @param {import("./live_run.js").LiveRun} run
 * @param {KVCache} cache
 * @param {number} to
 * @param {import("../model/hook.js").Hooks} [hooks]
 */
export async function readTokens(run, cache, to, hooks = noHooks) {
  const { model } = run.source;
  const ids = run.tokens.slice(cache.length, to).map(({ id }) => id); // the run may grow meanwhile
  const all = chainHooks(run.makeHooks(), hooks);
  const pauses = new Pauses();
  try {
    for (const id of ids) {
      model.forward([id], cache, { last: hooks === noHooks ? 0 : 1, hooks: all });
      await pauses.whenDue();
    }
  } finally {
    pauses.close();
  }
}

/** Some rows of a recording. A point without tokens has no rows to choose. */
function cutRows({ shape, data }, axes, range) {
  if (!range || axes[0] !== "seq") return { shape, data };
  const [count, ...rest] = shape;
  const width = rest.reduce((product, n) => product * n, 1);
  const to = Math.min(range.to, count);
  return { shape: [to - range.from, ...rest], data: data.subarray(range.from * width, to * width) };
}
