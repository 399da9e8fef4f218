/**
 * Where each token of a message is in its text.
 *
 * Messages are shown as plain text, so that an answer stays one run of text and 8,000 tokens need
 * few elements. A character may be split over several tokens, whose own texts are then not part of
 * the message; they share the place of the character.
 *
 * @typedef {{token: number, start: number, end: number}} Span  characters of the text
 */

/**
 * @param {{text: string}[]} messages
 * @param {import("../../source/source.js").Token[]} tokens
 * @param {number} from  the first token to look at
 * @returns {Span[][]}  for each message
 */
export function alignMessages(messages, tokens, from) {
  let at = from;
  return messages.map(({ text }) => {
    if (!text) return [];
    while (at < tokens.length && tokens[at].part !== "content") at += 1;
    const first = at;
    while (at < tokens.length && tokens[at].part === "content") at += 1;
    return alignTokens(text, tokens, first, at);
  });
}

function alignTokens(text, tokens, first, end) {
  const spans = [];
  let offset = 0;
  let pending = []; // parts of a character
  const place = (stop) => {
    for (const token of pending) spans.push({ token, start: offset, end: stop });
    pending = [];
    offset = stop;
  };
  for (let token = first; token < end; token++) {
    const found = text.indexOf(tokens[token].text, offset);
    const isNext = found === offset || (found > offset && pending.length > 0);
    if (!isNext) {
      pending.push(token);
      continue;
    }
    place(found);
    offset = found + tokens[token].text.length;
    spans.push({ token, start: found, end: offset });
  }
  place(text.length);
  return spans;
}
