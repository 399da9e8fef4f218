/**
 * The three replies of a trial side by side, and the change compared to its null.
 */

import { make, tokenText } from "../elements.js";
import { term } from "../glossary.js";
import { short } from "../numbers.js";
import { describeStop } from "../run_names.js";
import { firstDifference, marginOfToken } from "../trial.js";

/**
 * @param {import("../../source/source.js").Run[]} runs  unchanged, changed, null
 * @param {string[]} texts  what was done in the second and the third
 * @param {{start: number, seed: string, source: object, compare: (run: object) => void}} options
 *   `start`: the first token that could differ
 * @returns {HTMLElement[]}
 */
export function makeResults(runs, texts, options) {
  const titles = ["Unchanged", `Changed: ${texts[0]}`, `Null, seed ${options.seed}: ${texts[1]}`];
  return runs.map((run, n) => makeColumn(run, runs[0], titles[n], options));
}

function shortOrNone(value) {
  return value === null ? "unknown" : short(value);
}

/** One sentence that compares the change to its null. */
export function compareToNull([unchanged, changed, control]) {
  const differs = (run) => run.answer !== unchanged.answer;
  if (!differs(changed)) {
    return differs(control)
      ? "The change leaves the answer as it was; the null changes it."
      : "Neither the change nor the null changes the answer.";
  }
  return differs(control)
    ? "The answer changes, but the null changes it too: this is not specific to the expert."
    : "The change alters the answer; the null does not.";
}

function makeColumn(run, unchanged, title, { start, source, compare }) {
  const difference = firstDifference(unchanged, run);
  const margin = (token) => shortOrNone(marginOfToken(token));
  const lines = [
    make("h5", {}, title),
    make("p", { class: "oss-experts-answer", dir: "auto" }, run.answer || "(no answer)"),
    make("p", {}, `${run.tokens.length - run.promptLength} tokens, ${describeStop(run)}.`),
    make("p", {}, term("logit margin", "Logit margin"), ` of token ${start}: ${margin(run.tokens[start])}.`),
  ];
  if (run === unchanged) return make("div", {}, lines);
  if (difference === null) lines.push(make("p", {}, "Every token is as in the unchanged reply."));
  else {
    const [before, after] = [unchanged, run].map(({ tokens }) => tokens[difference]);
    const describe = (token) =>
      token ? [tokenText(token.text), ` (margin ${margin(token)})`] : ["the end"];
    const first = `First differs at token ${difference}: `;
    lines.push(make("p", {}, first, describe(before), " became ", describe(after), "."));
  }
  const button = (label, call) => make("button", { type: "button", onclick: () => call(run) }, label);
  lines.push(
    make(
      "div", { class: "oss-controls" },
      button("Compare its experts", compare), button("Show this run", (each) => source.show(each)),
    ),
  ); // prettier-ignore
  return make("div", {}, lines);
}
