/** One position of the logit lens: when the prediction was found, and one layer's numbers. */

import { make, tokenText } from "../elements.js";
import { term } from "../glossary.js";
import { probability, short } from "../numbers.js";
import { makeProbabilityList } from "../probability_list.js";
import { readableText } from "../token_bytes.js";

/** @typedef {import("../../analysis/lens.js").LensCell} LensCell */

/**
 * The first layer from which on every layer predicts what the last one predicts.
 * @param {LensCell[]} column  [layer]
 */
function findSettledLayer(column) {
  const final = column.at(-1).topIds[0];
  let layer = column.length - 1;
  while (layer > 0 && column[layer - 1].topIds[0] === final) layer -= 1;
  return layer;
}

/** @param {LensCell[]} column  [layer] */
function describeSettling(column) {
  const layer = findSettledLayer(column);
  const predicted = readableText(column.at(-1).topTexts[0]);
  const text = `The model's prediction “${predicted}” is the most likely token`;
  if (layer === 0) return `${text} in every layer.`;
  if (layer === column.length - 1) return `${text} only in the last layer, ${layer}.`;
  return `${text} from layer ${layer} on.`;
}

/**
 * @param {LensCell[]} column  [layer]
 * @param {number | null} layer
 * @param {{text: string, id: number}} token  that was read
 * @param {{text: string, id: number}} came
 * @param {number} at  position of `token`
 */
export function makeLensDetail(column, layer, token, came, at) {
  const [read, next] = [token, came].map(({ text }) => tokenText(text));
  const actual = ["”; the actual next token is “", next, "”"];
  const head = make("h4", {}, `After token ${at}, “`, read, actual);
  const sentence = make("p", {}, describeSettling(column));
  if (layer === null) return [head, sentence, make("p", {}, "Select a layer to see its numbers.")];
  return [head, sentence, make("h4", {}, `Layer ${layer}`), ...makeNumbers(column[layer], came)];
}

function makeNumbers(cell, came) {
  const facts = [
    ["Probability of the actual next token", probability(cell.logprob)],
    [term("logprob", "Log-probability"), `${short(cell.logprob)} nats`],
    ["Rank", cell.rank ? `${cell.rank + 1}` : "1, the most likely"],
    ["Entropy", `${short(cell.entropy)} nats`],
    ["KL from the model's prediction", `${short(cell.divergence)} nats`],
  ];
  const entries = cell.topIds.map((id, n) => ({
    text: readableText(cell.topTexts[n]),
    logprob: cell.topLogprobs[n],
    isChosen: id === came.id,
  }));
  return [
    make("dl", {}, facts.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]).flat()),
    makeProbabilityList("Most likely tokens", entries),
  ];
}
