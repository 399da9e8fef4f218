/**
 * A trial: a change to a run, its null, and no change, each with the reply that follows.
 *
 * The null is the same change at another place. An effect that the null has too does not belong to
 * the place. All replies use the same random numbers.
 */

import { RandomStream } from "../engine/random.js";
import { short } from "./numbers.js";

/** @typedef {import("../source/source.js").Run} Run */

/**
 * One of the candidates at random, for the null.
 * @param {number[]} candidates
 * @param {number} seed
 */
export function drawNull(candidates, seed) {
  return candidates[Math.floor(new RandomStream(seed).uniform() * candidates.length)];
}

/** Every number below `count` but one. */
export function listOthers(count, number) {
  return Array.from({ length: count }, (_, n) => n).filter((n) => n !== number);
}

/**
 * A run with more interventions, ready to be generated.
 * @param {import("../source/source.js").Source} source
 * @param {Run} run
 * @param {number | null} at  fork here; null asks the question again
 * @param {import("../hooks/interventions.js").Intervention[]} extra
 * @returns {Promise<Run>}
 */
export function startChanged(source, run, at, extra) {
  const interventions = [...run.interventions, ...extra];
  if (at === null) return source.ask({ ...run.request, interventions });
  return source.fork(run, at, { interventions });
}

/** The run that the same step without the change gives. */
export async function startUnchanged(source, run, at) {
  return isUnchanged(run, at) ? run : startChanged(source, run, at, []);
}

/**
 * Whether a run is what the same step without the change would give, so that it need not be generated
 * again. Tokens that somebody wrote, or that came under other interventions, are changes too.
 */
function isUnchanged(run, at) {
  if (run.stop === null || run.request?.sampling?.temperature > 0) return false;
  if (run.parent === null) return true;
  return at !== null && run.parent.at <= at && run.tokens.slice(at).every(({ logprob }) => logprob !== null);
}

/** The first position where two runs have other tokens; null if there is none. */
export function firstDifference(run, other) {
  const length = Math.min(run.tokens.length, other.tokens.length);
  for (let n = 0; n < length; n++) if (run.tokens[n].id !== other.tokens[n].id) return n;
  return run.tokens.length === other.tokens.length ? null : length;
}

/** The logit of a token minus the best other one when it was generated; null if unknown. */
export function marginOfToken(token) {
  const others = token?.alternatives.filter(({ id }) => id !== token.id) ?? [];
  if (!others.length || token.logprob === null) return null;
  return token.logprob - Math.max(...others.map(({ logprob }) => logprob));
}

/** Where a reply leaves the unchanged one, and how sure the model was there. */
export function describeDifference(run, unchanged) {
  if (run === unchanged) return "";
  const at = firstDifference(unchanged, run);
  if (at === null) return "The same tokens.";
  const answer = run.answer === unchanged.answer ? "The same answer" : "Another answer";
  const margin = marginOfToken(unchanged.tokens[at]);
  const place = `${answer}; differs from token ${at} on`;
  if (margin === null) return `${place}.`;
  return `${place}, where the unchanged reply had a logit margin of ${short(margin)}.`;
}
