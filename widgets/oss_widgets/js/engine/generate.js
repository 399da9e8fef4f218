/**
 * Reads a prompt and generates tokens after it, in small pieces.
 *
 * A page that computes for longer than a frame cannot scroll or answer a click. So the loop pauses
 * every few milliseconds, in the prompt as well as in the reply.
 *
 * @typedef {object} Generated  log-probabilities are the model's, before sampling, in nats
 * @property {number} id
 * @property {number} logprob
 * @property {{id: number, logprob: number}[]} alternatives  most likely first
 */

import { LabError } from "../errors.js";
import { noHooks } from "../model/hook.js";
import { logSoftmax, topIds } from "./logprobs.js";
import { RandomStream } from "./random.js";
import { sample } from "./sampler.js";

const SLICE = 12; // milliseconds between pauses; a frame has 16

/**
 * Yields each token as it is sampled. It ends with a token of `stop`, after `maxTokens`, or at the
 * end of the context. Afterwards the cache holds all tokens but the last, which was not read.
 * @param {import("../model/transformer.js").Transformer} model
 * @param {import("./cache.js").KVCache} cache  the tokens before the prompt, often none
 * @param {number[]} prompt  at least one id
 * @param {object} options
 * @param {number[]} options.stop
 * @param {number} [options.maxTokens]
 * @param {import("./sampler.js").Sampling & {seed?: number | null}} [options.sampling]
 * @param {RandomStream} [options.random]  instead of a new one from the seed
 * @param {number} [options.alternatives]  how many of the most likely tokens to report
 * @param {(id: number) => boolean} [options.isUsable]  ids that may be generated
 * @param {import("../model/hook.js").Hooks} [options.hooks]
 * @param {AbortSignal} [options.signal]  ends it early, without an error
 * @returns {AsyncGenerator<Generated>}
 */
export async function* generate(model, cache, prompt, options) {
  const { stop, maxTokens = Infinity, hooks = noHooks, signal, isUsable = () => true } = options;
  const { alternatives: count = 0 } = options;
  const { seed = null, ...sampling } = options.sampling ?? { temperature: 0 };
  const context = contextLength(model.config);
  if (!prompt.length) throw new LabError("the prompt has no tokens");
  if (cache.length + prompt.length > context) {
    const tokens = cache.length + prompt.length;
    throw new LabError(`the prompt has ${tokens} tokens; the context is ${context}`);
  }
  const { random = new RandomStream(seed) } = options;
  const pauses = new Pauses();
  try {
    for (const id of prompt.slice(0, -1)) {
      model.forward([id], cache, { last: 0, hooks });
      await pauses.whenDue();
      if (signal?.aborted) return;
    }
    let last = prompt[prompt.length - 1];
    for (let written = 0; written < maxTokens && cache.length < context; written++) {
      const logits = model.forward([last], cache, { hooks });
      const allowed = logits.map((logit, id) => (isUsable(id) ? logit : -Infinity));
      last = sample(allowed, sampling, () => random.uniform());
      const logprobs = logSoftmax(logits);
      const best = count ? topIds(logprobs, count) : [];
      const alternatives = best.map((id) => ({ id, logprob: logprobs[id] }));
      yield { id: last, logprob: logprobs[last], alternatives };
      if (stop.includes(last)) return;
      await pauses.whenDue();
      if (signal?.aborted) return;
    }
  } finally {
    pauses.close();
  }
}

/** Context length with YaRN: 8,192 tokens in nano. */
export function contextLength(config) {
  return Math.round(config.initial_context_length * config.rope_scaling_factor);
}

/** Gives the page a turn every `SLICE` milliseconds. A timer would wait longer than a message. */
export class Pauses {
  constructor() {
    this.channel = new MessageChannel();
    this.started = performance.now();
  }

  get isDue() {
    return performance.now() - this.started >= SLICE;
  }

  async whenDue() {
    if (!this.isDue) return;
    await new Promise((resume) => {
      this.channel.port1.onmessage = resume;
      this.channel.port2.postMessage(null);
    });
    this.started = performance.now();
  }

  close() {
    this.channel.port1.close();
  }
}
