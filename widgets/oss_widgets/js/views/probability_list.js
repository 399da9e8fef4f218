/**
 * Tokens with their probabilities, most likely first: as bars, and as numbers.
 */

import { make } from "./elements.js";

/** A probability with three digits. @param {number} logprob  nats */
export function showProbability(logprob) {
  const probability = Math.exp(logprob);
  return probability && probability < 0.001 ? probability.toExponential(1) : probability.toFixed(3);
}

/** A number of nats with three digits. */
export function showNats(value) {
  return `${Math.abs(value) < 0.001 ? value.toExponential(1) : Number(value.toPrecision(3))} nats`;
}

/**
 * @param {string} label
 * @param {{text: string, logprob: number, isChosen: boolean, action?: Node | null}[]} entries
 */
export function makeProbabilityList(label, entries) {
  return make("ol", { class: "oss-probabilities", "aria-label": label }, entries.map(makeEntry));
}

function makeEntry({ text, logprob, isChosen, action = null }) {
  const bar = make("span", { class: "oss-probability-bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", Math.exp(logprob));
  return make(
    "li",
    {},
    make("bdi", { class: "oss-token-text" }, text),
    bar,
    make("span", { class: "oss-probability" }, showProbability(logprob)),
    isChosen ? make("span", { class: "oss-chosen" }, "✓ came") : action,
  );
}
