/**
 * Reads a prompt and generates tokens after it, in small pieces.
 *
 * A page that computes for longer than a frame cannot scroll or answer a click. So the loop pauses
 * every few milliseconds, in the prompt as well as in the reply.
 *
 * @typedef {{id: number, logprob: number}} Token  logprob is the model's, before sampling, in nats
 */

import { LabError } from "../errors.js";
import { noHooks } from "../model/hook.js";
import { logSoftmax } from "./logprobs.js";
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
 * @param {(id: number) => boolean} [options.isUsable]  ids that may be generated
 * @param {import("../model/hook.js").Hooks} [options.hooks]
 * @param {AbortSignal} [options.signal]  ends it early, without an error
 * @returns {AsyncGenerator<Token>}
 */
export async function* generate(model, cache, prompt, options) {
  const { stop, maxTokens = Infinity, hooks = noHooks, signal, isUsable = () => true } = options;
  const { seed = null, ...sampling } = options.sampling ?? { temperature: 0 };
  const context = contextLength(model.config);
  if (!prompt.length) throw new LabError("the prompt has no tokens");
  if (cache.length + prompt.length > context) {
    const count = cache.length + prompt.length;
    throw new LabError(`the prompt has ${count} tokens; the context is ${context}`);
  }
  const random = new RandomStream(seed);
  const pauses = new Pauses();
  try {
    for (const id of prompt.slice(0, -1)) {
      model.forward([id], cache, { last: 0, hooks });
      await pauses.whenDue();
      if (signal?.aborted) return;
    }
    let last = prompt[prompt.length - 1];
    for (let count = 0; count < maxTokens && cache.length < context; count++) {
      const logits = model.forward([last], cache, { hooks });
      const allowed = logits.map((logit, id) => (isUsable(id) ? logit : -Infinity));
      last = sample(allowed, sampling, () => random.uniform());
      yield { id: last, logprob: logSoftmax(logits)[last] };
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
class Pauses {
  constructor() {
    this.channel = new MessageChannel();
    this.started = performance.now();
  }

  async whenDue() {
    if (performance.now() - this.started < SLICE) return;
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
