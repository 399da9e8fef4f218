/**
 * Tokens with their probabilities, most likely first: as bars, and as numbers.
 */

import { make } from "./elements.js";
import { probability } from "./numbers.js";

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
    make("span", { class: "oss-probability" }, probability(logprob)),
    isChosen ? make("span", { class: "oss-chosen" }, "✓ actual") : action,
  );
}
