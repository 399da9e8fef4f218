/**
 * One token in one layer: its experts with their weights, the router's margin and entropy.
 */

import { make, tokenText } from "../elements.js";
import { term } from "../glossary.js";
import { short } from "../numbers.js";
import { makeExpertBars } from "./bars.js";
import { ENTROPY, MARGIN } from "./recordings.js";
import { sectionOf } from "./sections.js";

/**
 * @param {import("./recordings.js").Recordings} recordings
 * @param {{token: number, layer: number, expert: number | null}} place
 * @param {(expert: number) => void} select
 * @returns {HTMLElement}
 */
export function makeTokenDetail(recordings, place, select) {
  const { run } = recordings;
  const { token: position, layer } = place;
  const chosen = recordings.chosen(layer, position);
  const token = tokenText(run.tokens[position].text);
  const heading = make("h4", {}, `Token ${position} `, token, ` in layer ${layer}`);
  const section = make("p", {}, `Section: ${sectionOf(run, position)}.`);
  if (!chosen.length) {
    return make("section", {}, heading, section, make("p", {}, "No choice of experts is recorded here."));
  }
  const entries = chosen.map(({ expert, weight }) => ({
    expert,
    share: weight ?? 0,
    text: weight === null ? "" : weight.toFixed(3),
    name: weight === null ? `expert ${expert}` : `expert ${expert}, weight ${weight.toFixed(3)}`,
  }));
  const margin = recordings.get(MARGIN, layer)?.[position];
  const entropy = recordings.get(ENTROPY, layer)?.[position];
  return make(
    "section",
    { class: "oss-experts-token" },
    heading,
    section,
    make("p", {}, term("expert", "Experts"), " of this token, with their ", term("weight", "weights"), ":"),
    makeExpertBars(`Experts of token ${position} in layer ${layer}`, entries, place.expert, select),
    margin === undefined ? null : makeFact("margin", "Router margin", `${short(margin)} logits`),
    entropy === undefined ? null : makeFact("entropy", "Router entropy", `${short(entropy)} nats`),
  );
}

function makeFact(word, name, value) {
  return make("p", {}, term(word, name), `: ${value}`);
}
