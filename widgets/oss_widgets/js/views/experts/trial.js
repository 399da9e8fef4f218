/**
 * A trial of one expert: which change and null it has, and its three replies.
 */

import { drawNull, listOthers, startChanged, startUnchanged } from "../trial.js";

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
  const make = (which) =>
    kind === "ablate"
      ? { kind: "AblateExpert", layer, expert: which }
      : { kind: "ForceExpert", layer, slot: chosen.length - 1, expert: which };
  return { change: make(expert), control: make(drawNull(candidates, seed)) };
}

/** Experts for the null: of this token to ablate, outside it to force, else any other one. */
function listCandidates(kind, expert, chosen, experts, from) {
  const others = listOthers(experts, expert);
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
  const runs = [];
  for (const extra of [[], [plan.change], [plan.control]]) {
    if (signal.aborted) return;
    const isUnchanged = !extra.length;
    const each = await (isUnchanged ? startUnchanged(source, run, at) : startChanged(source, run, at, extra));
    runs.push(each);
    yield runs;
    for await (const _ of source.step(each, { signal })) yield runs;
  }
}
