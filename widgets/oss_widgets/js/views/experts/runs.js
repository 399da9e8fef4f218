/**
 * Runs and interventions as short texts.
 */

const LONGEST = 30; // characters of a question

/** Such as `run-2: high, “What is 347 * 62?”, without expert 7 in layer 2 from token 90 on`. */
export function describeRun(run) {
  const { request, parent, interventions } = run;
  const parts = [];
  if (request) {
    const { question } = request;
    const short = question.length > LONGEST ? `${question.slice(0, LONGEST - 1)}…` : question;
    parts.push(request.effort, `“${short}”`);
  }
  parts.push(...interventions.map(describeIntervention));
  if (parent) parts.push(`from ${parent.run}, token ${parent.at}`);
  return parts.length ? `${run.id}: ${parts.join(", ")}` : run.id;
}

/** What an intervention does, in words. */
export function describeIntervention(spec) {
  const { kind, layer, expert } = spec;
  if (kind === "AblateExpert") return `without expert ${expert} in layer ${layer}`;
  if (kind === "ForceExpert") return `expert ${expert} forced in layer ${layer}`;
  return `${kind} in layer ${layer}`;
}
