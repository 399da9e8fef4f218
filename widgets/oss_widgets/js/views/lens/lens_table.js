/** The positions of the logit lens that were computed so far, as a table. */

import { makeTable } from "../elements.js";
import { showProbability } from "../probability_list.js";
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
  const layers = Array.from({ length: num_hidden_layers }, (_, layer) => `Layer ${layer}`);
  return makeTable("The positions computed so far", ["Position", "Token", "Came", ...layers], rows);
}

function showCell({ topTexts, logprob }) {
  return `${readableText(topTexts[0])} (came: ${showProbability(logprob)})`;
}
