/** The positions of the logit lens that were computed so far, as a table. */

import { makeTable } from "../elements.js";
import { probability } from "../numbers.js";
import { readableText } from "../token_bytes.js";

/**
 * @param {import("../../analysis/lens.js").LensCell[][]} columns  [position][layer], sparse
 * @param {import("../../source/source.js").Token[]} tokens
 * @param {{num_hidden_layers: number}} config
 */
export function makeLensTable(columns, tokens, { num_hidden_layers }) {
  const rows = [];
  columns.forEach((layers, position) => {
    const [token, came] = [0, 1].map((n) => readableText(tokens[position + n].text));
    rows.push([`${position}`, token, came, ...layers.map(showCell)]);
  });
  const layers = Array.from({ length: num_hidden_layers }, (_, layer) => `layer ${layer}`);
  const caption = "Most likely token of each layer (probability of the actual next token), so far";
  return makeTable(caption, ["position", "token", "actual next token", ...layers], rows);
}

function showCell({ topTexts, logprob }) {
  return `${readableText(topTexts[0])} (${probability(logprob)})`;
}
