/** Everything that is known about one token. */

import { make, tokenText } from "../elements.js";
import { term } from "../glossary.js";
import { probability, short } from "../numbers.js";
import { makeProbabilityList } from "../probability_list.js";
import { findCharacter, readableText } from "../token_bytes.js";

/**
 * @param {import("../../source/source.js").Token[]} tokens
 * @param {number} at
 * @param {object} more
 * @param {[string, string][]} more.values  further names and values
 * @param {((id: number, text: string) => void) | null} more.write  writes another token here; null
 *   if that is not possible
 */
export function makeTokenDetail(tokens, at, { values, write }) {
  const token = tokens[at];
  const facts = [
    ["Text", tokenText(token.text)],
    ...describeBytes(tokens, at),
    ["Token id", `${token.id ?? "none"}`],
    ["Message", token.message < 0 ? "none yet" : `${token.message}`],
    ["Role", token.role ?? "none"],
    [term("channel", "Channel"), token.channel ?? "none"],
    ...(token.recipient ? [["Recipient", token.recipient]] : []),
    ["Part", token.part === "format" ? "Harmony format" : "content"],
    ["Probability", token.logprob === null ? "not recorded" : probability(token.logprob)],
    [term("logprob", "Log-probability"), showLogprob(token.logprob)],
    ["Rank", showRank(token)],
    ...values,
  ];
  return [
    make("h4", {}, `Token ${at}`),
    make("dl", {}, facts.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]).flat()),
    token.alternatives.length ? makeAlternatives(token, write) : null,
  ];
}

function describeBytes(tokens, at) {
  const found = findCharacter(tokens, at);
  if (!found) return [];
  const { bytes, character, part, parts } = found;
  const place = character ? `part ${part} of ${parts} of ` : "not a whole character";
  const shown = make("span", {}, `${bytes}: ${place}`, character && make("bdi", {}, character));
  return [["Bytes", shown]];
}

function showLogprob(logprob) {
  return logprob === null ? "not recorded" : `${short(logprob)} nats`;
}

function showRank({ id, logprob, alternatives }) {
  if (logprob === null || !alternatives.length) return "not recorded";
  const place = alternatives.findIndex((each) => each.id === id);
  if (place < 0) return `not among the ${alternatives.length} most likely`;
  return place ? `${place + 1}` : "1, the most likely";
}

function makeAlternatives({ id, alternatives }, write) {
  const entries = alternatives.map((each) => ({
    text: readableText(each.text),
    logprob: each.logprob,
    isChosen: each.id === id,
    action: write && makeWriteButton(each, write),
  }));
  return make("div", {}, make("h4", {}, "Alternatives"), makeProbabilityList("Alternatives", entries));
}

function makeWriteButton({ id, text }, write) {
  const name = `Write this instead: ${readableText(text)}`;
  const onclick = () => write(id, text);
  return make("button", { type: "button", "aria-label": name, onclick }, "Write this");
}
