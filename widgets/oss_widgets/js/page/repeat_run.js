/**
 * A run as the few plain values from which it can be repeated: the question, and the forks.
 *
 * @typedef {object} Recipe
 * @property {import("../source/source.js").Request} request
 * @property {{at: number, ids: number[], interventions: object[]}[]} forks  oldest first
 */

import { LabError } from "../errors.js";

/** @returns {Recipe | null}  null if nothing was asked */
export function describeRun(source, run) {
  const forks = [];
  while (run?.parent) {
    const { at, run: id } = run.parent;
    const written = run.tokens.slice(at);
    const end = written.findIndex(({ logprob }) => logprob !== null);
    const ids = written.slice(0, end < 0 ? written.length : end).map((token) => token.id);
    forks.unshift({ at, ids, interventions: run.interventions });
    run = source.runs.find((each) => each.id === id);
  }
  return run?.request ? { request: run.request, forks } : null;
}

/**
 * Ask again, generate every reply to its end, and show the last run. Ends early if another run is shown
 * meanwhile: somebody has asked something else.
 * @param {Recipe} recipe
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>}  whether the last run is shown
 */
export async function repeatRun(source, { request, forks }, signal) {
  let run = await source.ask(request);
  const generate = async () => {
    source.show(run);
    for await (const _ of source.step(run, { signal }));
    return !signal.aborted && source.shown === run;
  };
  if (!(await generate())) return false;
  const unknown = forks.flatMap(({ ids }) => ids).find((id) => id >= source.config.vocab_size);
  if (unknown !== undefined) throw new LabError(`there is no token ${unknown} in the vocabulary`);
  for (const { at, ids, interventions } of forks) {
    run = await source.fork(run, at, { ids, interventions });
    if (!(await generate())) return false;
  }
  return true;
}
