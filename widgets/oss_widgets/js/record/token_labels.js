/**
 * Label each token of a conversation with its text and its place in the Harmony format.
 *
 * The streaming parser finds message, role, channel and recipient from the token ids alone. Any
 * value with one number per token can be grouped by these labels.
 */

import { StreamParser } from "../harmony/parse.js";

/**
 * @param {import("../tokenizer.js").Tokenizer} tokenizer
 * @param {number[]} ids
 * @param {string | null} role as in StreamParser: null if the stream starts with `<|start|>`
 * @returns {{id: number, text: string, message: number, role: string | null,
 *   channel: string | null, recipient: string | null, part: "content" | "format"}[]}
 *   `message` is -1 between messages
 */
export function labelTokenIds(tokenizer, ids, role = null) {
  const empty = { message: -1, role: null, channel: null, recipient: null, part: "format" };
  const labels = ids.map((id) => ({ id, text: tokenizer.decode([id]), ...empty }));
  const parser = new StreamParser(tokenizer, role);
  const events = [...parser.feed(ids), ...parser.finish()];
  const ends = events.filter((event) => event.event === "end");
  ends.forEach(({ message, tokens: [first, end] }, number) => {
    const { channel, recipient } = message;
    const fields = { message: number, role: message.role, channel, recipient };
    for (let n = first; n < end; n++) Object.assign(labels[n], fields);
  });
  for (const event of events.filter((each) => each.event === "delta")) {
    for (let n = event.tokens[0]; n < event.tokens[1]; n++) labels[n].part = "content";
  }
  return labels;
}
