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

import { logSoftmax, topIds } from "../engine/logprobs.js";
import { layerLogits, splitRows } from "../hooks/derived.js";

/**
 * Every layer's prediction after some tokens.
 * @param {import("../model/transformer.js").Transformer} model
 * @param {import("../source/source.js").Recording[]} resids  `resid.post` of each layer
 * @param {import("../source/source.js").Recording} logits  `out.logits`
 * @param {number[]} targets  the token that follows each of them
 * @param {number} top  how many of the most likely tokens to return
 * @returns {LensCell[][]}  [layer][position]
 */
export function lens(model, resids, logits, targets, top = 5) {
  const { vocab_size: vocab } = model.config;
  const layers = resids.map((resid, layer) => {
    const data = layerLogits(model, layer, resid);
    return { shape: [data.length / vocab, vocab], data };
  });
  return lensOfLogits(layers, logits, targets, top);
}

/** The same from `out.layer_logits` of each layer. @returns {LensCell[][]} */
export function lensOfLogits(layers, logits, targets, top) {
  const readRows = ({ shape, data }) => splitRows(data, shape[1]).map(logSoftmax);
  const final = readRows(logits);
  return layers.map((layer) =>
    readRows(layer).map((row, n) => readPrediction(row, final[n], targets[n], top)),
  );
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
