/** All tokens as a table. */

import { makeTable } from "../elements.js";
import { probability } from "../numbers.js";
import { readableText } from "../token_bytes.js";

const HEADS = [
  "position", "token", "id", "message", "role", "channel", "part", "probability", "alternatives",
]; // prettier-ignore

/**
 * @param {import("../../source/source.js").Token[]} tokens
 * @param {import("./own_array.js").OwnArray | null} array
 */
export function makeTokenTable(tokens, array) {
  const rows = tokens.map((token, n) => [
    `${n}`,
    readableText(token.text),
    `${token.id ?? "none"}`,
    token.message < 0 ? "none yet" : `${token.message}`,
    token.role ?? "none",
    token.channel ?? "none",
    token.part,
    token.logprob === null ? "not recorded" : probability(token.logprob),
    token.alternatives.map(showAlternative).join(", "),
    ...(array ? [array.text(n)] : []),
  ]);
  return makeTable("All tokens", array ? [...HEADS, array.name] : HEADS, rows);
}

function showAlternative({ text, logprob }) {
  return `${readableText(text)} ${probability(logprob)}`;
}
