/**
 * The logit lens: what each layer would predict if it were the last.
 *
 * The final norm and unembedding are applied to the residual stream after every layer
 * ("interpreting GPT: the logit lens", nostalgebraist, 2020). Earlier layers were not trained to be
 * read in this way. A token that appears early is encoded in the residual stream. One that does not
 * appear may still be encoded there, in another form.
 *
 * @typedef {object} LensCell  one layer's prediction after one position, in nats
 * @property {number[]} topIds  the most likely next tokens, most likely first
 * @property {number[]} topLogprobs
 * @property {number} rank  how many ids are more likely than the target
 * @property {number} logprob  of the target
 * @property {number} entropy  of the prediction
 * @property {number} divergence  Kullback-Leibler: nats lost by using it instead of the model's
 */

import { KVCache } from "../engine/cache.js";
import { logSoftmax, topIds } from "../engine/logprobs.js";
import { layerLogits, splitRows } from "../hooks/derived.js";
import { Recorder } from "../hooks/recorder.js";

/**
 * Every layer's prediction after each token but the last; the target is the token that follows.
 * @param {import("../model/transformer.js").Transformer} model
 * @param {number[]} tokens
 * @param {number} top  how many of the most likely tokens to return
 * @returns {LensCell[][]}  [layer][position]
 */
export function lens(model, tokens, top = 5) {
  const recorder = new Recorder(model, ["resid.post"]);
  const read = tokens.slice(0, -1);
  const logits = model.forward(read, new KVCache(model.config), { hooks: recorder.hooks });
  const vocab = model.config.vocab_size;
  const final = splitRows(logits, vocab).map(logSoftmax);
  return model.blocks.map((_, layer) => {
    const rows = splitRows(layerLogits(model, layer, recorder.get("resid.post", layer)), vocab);
    return rows.map((row, position) =>
      readPrediction(logSoftmax(row), final[position], tokens[position + 1], top),
    );
  });
}

/**
 * @param {Float64Array} logprobs  [vocab], one layer's
 * @param {Float64Array} final  [vocab], the model's
 * @returns {LensCell}
 */
function readPrediction(logprobs, final, target, top) {
  const ids = topIds(logprobs, top);
  let rank = 0;
  let entropy = 0;
  let divergence = 0;
  logprobs.forEach((logprob, id) => {
    if (logprob > logprobs[target]) rank += 1;
    entropy -= Math.exp(logprob) * logprob;
    divergence += Math.exp(final[id]) * (final[id] - logprob);
  });
  const topLogprobs = ids.map((id) => logprobs[id]);
  return { topIds: ids, topLogprobs, rank, logprob: logprobs[target], entropy, divergence };
}
