/**
 * What is recorded of a run. The cheap points are recorded while the run is generated, so a view of
 * the experts needs no second pass. All other points are computed when they are first requested, by
 * reading the tokens again with the interventions that were in force at each of them.
 */

import { KVCache } from "../engine/cache.js";
import { Pauses } from "../engine/generate.js";
import { makeHooks } from "../hooks/interventions.js";
import { Recorder } from "../hooks/recorder.js";
import { chainHooks } from "../model/hook.js";

const CHEAP = ["moe.expert_ids", "moe.expert_weights", "moe.router_logits", "attn.sink_mass"];

export class LiveRecording {
  constructor(model, recorder = new Recorder(model, CHEAP)) {
    this.model = model;
    this.recorder = recorder;
    this.kept = new Map(); // computed points, by "name layer"
    this.keptLength = 0; // tokens of the run that they cover
  }

  /** Pass these to the model while it generates. */
  get hooks() {
    return this.recorder.hooks;
  }

  truncate(length) {
    this.recorder.truncate(length);
  }

  /** The recording of a run that shares the tokens before `length`. */
  fork(length) {
    return new LiveRecording(this.model, this.recorder.fork(length));
  }

  /**
   * A point at every token of the run.
   * @param {import("./live_run.js").LiveRun} run
   * @returns {Promise<import("./source.js").Recording>}
   */
  async get(run, name, layer) {
    if (this.keptLength !== run.tokens.length) this.kept.clear();
    this.keptLength = run.tokens.length;
    const key = `${name} ${layer}`;
    if (!this.kept.has(key)) {
      const compute = CHEAP.includes(name) ? this.getCheap(run, name, layer) : this.replay(run, name, layer);
      this.kept.set(key, compute);
    }
    return this.kept.get(key);
  }

  /** Also reads the tokens that the run's cache does not have, over a fork of it. */
  async getCheap(run, name, layer) {
    this.recorder.truncate(run.cache.length);
    await read(run, run.cache.fork(), this.recorder);
    return this.recorder.get(name, layer);
  }

  async replay(run, name, layer) {
    const recorder = new Recorder(this.model, [name], layer === null ? null : [layer]);
    await read(run, new KVCache(this.model.config), recorder);
    return recorder.get(name, layer);
  }
}

/** Read a run's tokens from the end of `cache` on, with the interventions in force at each. */
async function read({ source: { model }, tokens, changes }, cache, recorder) {
  const applied = changes.map(({ interventions }) => makeHooks(model.config, interventions).hooks);
  const pauses = new Pauses();
  try {
    for (const { id } of tokens.slice(cache.length)) {
      const now = changes.findLastIndex(({ from }) => from <= cache.length);
      model.forward([id], cache, { hooks: chainHooks(applied[now], recorder.hooks) });
      await pauses.whenDue();
    }
  } finally {
    pauses.close();
  }
}
