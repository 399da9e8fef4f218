/** Where the messages of a run begin, and what they are called. */

/**
 * Whether a token begins a message. While a reply is generated its tokens have no number yet, so
 * each `<|start|>` begins one.
 * @param {import("../../source/source.js").Token[]} tokens
 */
export function startsMessage(tokens, n) {
  if (n === 0 || tokens[n].message !== tokens[n - 1].message) return true;
  return tokens[n].message < 0 && tokens[n].part === "format" && tokens[n].text === "<|start|>";
}

/**
 * The name of the message that begins at `from`: its role, channel and recipient.
 * @returns {{text: string, kind: string}}  `kind` is the channel, or "format" if there is none
 */
export function nameMessage(tokens, from) {
  let end = from + 1;
  while (end < tokens.length && !startsMessage(tokens, end)) end += 1;
  const { message, role, channel, recipient } = tokens[end - 1];
  const parts = [role ?? (message < 0 ? "no message yet" : "text"), channel, recipient && `to ${recipient}`];
  return { text: parts.filter(Boolean).join(" · "), kind: channel ?? "format" };
}
