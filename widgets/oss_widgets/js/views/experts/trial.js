/**
 * A trial: one change to the experts, its null, and no change, each with the reply that follows.
 *
 * The null is the same change at another expert. An effect that the null has too does not belong to
 * the expert. All three replies use the same random numbers.
 */

import { RandomStream } from "../../engine/random.js";

/** @typedef {"ablate" | "force"} Change */

/** @typedef {object} Plan
 * @property {import("../../source/source.js").Intervention} change
 * @property {import("../../source/source.js").Intervention} control  the null
 */

/**
 * @param {Change} kind
 * @param {{layer: number, expert: number}} place
 * @param {number[]} chosen  experts of the selected token in this layer
 * @param {number} experts  of the model
 * @param {{from: "token" | "layer", seed: number}} options  where the null's expert is drawn from
 * @returns {Plan}
 */
export function planTrial(kind, { layer, expert }, chosen, experts, { from, seed }) {
  const candidates = listCandidates(kind, expert, chosen, experts, from);
  const drawn = Math.floor(new RandomStream(seed).uniform() * candidates.length);
  const make = (which) =>
    kind === "ablate"
      ? { kind: "AblateExpert", layer, expert: which }
      : { kind: "ForceExpert", layer, slot: chosen.length - 1, expert: which };
  return { change: make(expert), control: make(candidates[drawn]) };
}

/** Experts for the null: of this token to ablate, outside it to force, else any other one. */
export function listCandidates(kind, expert, chosen, experts, from) {
  const others = Array.from({ length: experts }, (_, n) => n).filter((n) => n !== expert);
  if (kind === "force") return others.filter((n) => !chosen.includes(n));
  const ofToken = others.filter((n) => chosen.includes(n));
  return from === "token" && ofToken.length ? ofToken : others;
}

/**
 * The first position of a run that can be generated again after a token was read with a change;
 * null if the run ended there.
 */
export function forkPosition(run, token) {
  const at = Math.max(token + 1, run.promptLength);
  return at < run.tokens.length || run.stop === null ? Math.min(at, run.tokens.length) : null;
}

/**
 * Runs a trial. Yields the three runs whenever one of them has grown.
 * @param {import("../../source/source.js").Source} source
 * @param {import("../../source/source.js").Run} run
 * @param {Plan} plan
 * @param {number | null} at  fork here; null asks the question again
 * @param {AbortSignal} signal  stops it; what was generated stays
 */
export async function* runTrial(source, run, plan, at, signal) {
  const start = (extra) => {
    const interventions = [...run.interventions, ...extra];
    if (at === null) return source.ask({ ...run.request, interventions });
    return source.fork(run, at, { interventions });
  };
  const isKnown = run.stop !== null && !run.request?.sampling?.temperature;
  const runs = [];
  for (const extra of [[], [plan.change], [plan.control]]) {
    if (signal.aborted) return;
    const isUnchanged = !extra.length;
    const each = isUnchanged && isKnown ? run : await start(extra);
    runs.push(each);
    yield runs;
    for await (const _ of source.step(each, { signal })) yield runs;
  }
}

/** The logit of a token minus the best other one when it was generated; null if unknown. */
export function marginOfToken(token) {
  const others = token?.alternatives.filter(({ id }) => id !== token.id) ?? [];
  if (!others.length || token.logprob === null) return null;
  return token.logprob - Math.max(...others.map(({ logprob }) => logprob));
}

/** The first position where two runs have other tokens; null if there is none. */
export function firstDifference(run, other) {
  const length = Math.min(run.tokens.length, other.tokens.length);
  for (let n = 0; n < length; n++) if (run.tokens[n].id !== other.tokens[n].id) return n;
  return run.tokens.length === other.tokens.length ? null : length;
}
