/**
 * Runs and interventions as short texts.
 */

const LONGEST = 30; // characters of a question
const ENDINGS = {
  return: "finished",
  call: "waits for the output of a tool",
  length: "stopped at the maximum number of tokens",
  endoftext: "ended with <|endoftext|>, before the end of a message",
  invented: "stopped, because the model began a message of another author",
};

/** Such as `run-2: high, “What is 347 * 62?”, AblateExpert, layer 2, expert 7, from run-1, token 90`. */
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

/** "AblateExpert, layer 2, expert 7": the names of Python, so it can be looked up and repeated. */
export function describeIntervention({ kind, ...fields }) {
  return [kind, ...Object.entries(fields).map(([name, value]) => `${name} ${value}`)].join(", ");
}

/** How a run ended. */
export function describeStop({ stop }) {
  return stop === null ? "not finished" : ENDINGS[stop];
}
