/**
 * The text of several tokens. A label writes the bytes of a token that splits a character as \xNN.
 */

import { decodeAll } from "../utf8.js";

/** @param {string[]} texts  of consecutive tokens, as `token_labels.js` writes them */
export function joinTexts(texts) {
  const utf8 = new TextEncoder();
  const bytes = texts.flatMap((text) =>
    text.split(/(\\x[89a-f][0-9a-f])/).flatMap((part, n) =>
      n % 2 ? [parseInt(part.slice(2), 16)] : [...utf8.encode(part)],
    ),
  );
  return decodeAll(bytes);
}
