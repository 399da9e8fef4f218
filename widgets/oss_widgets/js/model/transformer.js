/**
 * The whole model: token ids go in, logits for the next token come out.
 *
 * Each token id selects a row of the embedding matrix. This vector is the start of the token's
 * residual stream. Every layer reads the stream twice and adds to it twice: attention brings in
 * information from earlier tokens, then the experts process the token. The final norm and the
 * unembedding turn the stream into logits: one score per token of the vocabulary, whose softmax is
 * the probability of the next token.
 *
 * The model in `oss_lab/model` reads many tokens at once, in PyTorch. This one reads them one by
 * one, with nothing but arrays and loops. Both must give the same logits.
 */

import { readNumbers, readSafetensors } from "../checkpoint/safetensors.js";
import { LabError } from "../errors.js";
import { Attention, firstKey } from "./attention.js";
import { windowOf } from "./config.js";
import { inLayer, noHooks } from "./hook.js";
import { linear } from "./linear.js";
import { MixtureOfExperts } from "./moe.js";
import { rmsNorm } from "./norm.js";
import { rotationAt, yarnFrequencies } from "./rope.js";

/** gpt-oss of any size that fits into memory. */
export class Transformer {
  /**
   * @param {import("./config.js").ModelConfig} config
   * @param {Uint8Array} file  a safetensors file with the names of the original checkpoint
   */
  constructor(config, file) {
    const { tensors } = readSafetensors(file);
    const take = (name, shape) => {
      const tensor = tensors.get(name);
      if (!tensor) throw new LabError(`the checkpoint has no tensor ${name}`);
      if (String(tensor.shape) !== String(shape)) {
        throw new LabError(`${name} is [${tensor.shape}]; config.json needs [${shape}]`);
      }
      return readNumbers(tensor);
    };
    const { hidden_size: hidden, vocab_size: vocab } = config;
    this.config = config;
    this.frequencies = yarnFrequencies(config);
    this.embedding = take("embedding.weight", [vocab, hidden]);
    this.blocks = config.layer_types.map((_, layer) => {
      const takeInLayer = (name, shape) => take(`block.${layer}.${name}`, shape);
      return {
        attention: new Attention(config, layer, takeInLayer),
        experts: new MixtureOfExperts(config, takeInLayer),
      };
    });
    this.normScale = take("norm.scale", [hidden]);
    this.unembedding = take("unembedding.weight", [vocab, hidden]);
    this.x = new Float32Array(hidden);
    this.normed = new Float32Array(hidden);
  }

  /**
   * Read tokens after those in the cache, and add them to it.
   * @param {Iterable<number>} tokens  ids
   * @param {import("../engine/cache.js").KVCache} cache
   * @param {object} [options]
   * @param {number} [options.last]  how many of the last tokens get logits; by default all of them
   * @param {import("./hook.js").Hooks} [options.hooks]
   * @returns {Float32Array}  [last vocab]
   */
  forward(tokens, cache, { last = Infinity, hooks = noHooks } = {}) {
    const ids = [...tokens];
    ids.forEach((id) => checkToken(id, this.config.vocab_size));
    const skipped = Math.max(0, ids.length - last);
    const logits = new Float32Array((ids.length - skipped) * this.config.vocab_size);
    const before = cache.length;
    try {
      ids.forEach((id, n) => {
        const x = this.runLayers(id, cache, hooks);
        if (n >= skipped) {
          const begin = (n - skipped) * this.config.vocab_size;
          const row = logits.subarray(begin, begin + this.config.vocab_size);
          const hook = inLayer(hooks, null, { position: cache.length, token: id, firstKey: 0 });
          this.unembed(row, x, hook);
        }
        cache.advance();
      });
    } catch (error) {
      cache.truncate(before);
      throw error;
    }
    return logits;
  }

  /** The residual stream of one token after all layers, [hidden]. */
  runLayers(id, cache, hooks) {
    const { x } = this;
    x.set(this.embedding.subarray(id * x.length, (id + 1) * x.length));
    inLayer(hooks, null, { position: cache.length, token: id, firstKey: 0 })("embed", x);
    return this.runLayersFrom(0, id, cache, hooks);
  }

  /** The same, where `this.x` is the residual stream before layer `first`. */
  runLayersFrom(first, id, cache, hooks) {
    const { x, config } = this;
    const position = cache.length;
    const rotation = rotationAt(config, this.frequencies, position); // the same in all layers
    for (let layer = first; layer < this.blocks.length; layer++) {
      const { attention, experts } = this.blocks[layer];
      const oldest = firstKey(position, windowOf(config, layer));
      const hook = inLayer(hooks, layer, { position, token: id, firstKey: oldest });
      hook("resid.pre", x);
      add(x, attention.forward(x, rotation, cache, hook));
      hook("resid.mid", x);
      add(x, experts.forward(x, hook));
      hook("resid.post", x);
    }
    return x;
  }

  /**
   * The logits of one more token whose residual stream before layer `first` is known. The token is
   * not added to the cache, so it can be repeated.
   * @param {number} first
   * @param {Float32Array} resid  [hidden], not changed
   * @param {number} id
   * @param {import("../engine/cache.js").KVCache} cache
   * @param {import("./hook.js").Hooks} hooks
   * @returns {Float32Array}  [vocab]
   */
  repeatFrom(first, resid, id, cache, hooks) {
    this.x.set(resid);
    const x = this.runLayersFrom(first, id, cache, hooks);
    const hook = inLayer(hooks, null, { position: cache.length, token: id, firstKey: 0 });
    return this.unembed(new Float32Array(this.config.vocab_size), x, hook);
  }

  /** logits = the unembedding of the normed residual stream `x`, [vocab]. */
  unembed(logits, x, hook = noHooks) {
    hook("out.norm", rmsNorm(this.normed, x, this.normScale, this.config.rms_norm_eps));
    hook("out.logits", linear(logits, this.unembedding, this.normed));
    return logits;
  }
}

function checkToken(id, vocab) {
  if (!(Number.isInteger(id) && 0 <= id && id < vocab)) {
    throw new LabError(`token id ${id} is out of range; the model has ids 0 to ${vocab - 1}`);
  }
}

function add(x, y) {
  for (let n = 0; n < x.length; n++) x[n] += y[n];
}
