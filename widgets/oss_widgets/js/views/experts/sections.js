/**
 * The sections of a run: the prompt, and the channels and tools of the reply.
 */

const LINES = {
  prompt: "format-line", analysis: "analysis-line", commentary: "commentary-line", final: "final-line",
}; // prettier-ignore

/** "prompt", a channel, a role of messages without a channel, or "text" of one token. */
export function sectionOf(run, position) {
  if (position < run.promptLength) return "prompt";
  const { channel, role } = run.tokens[position];
  if (channel !== null) return channel;
  return role === "assistant" ? "header" : (role ?? "text");
}

/** Color of a section, as a name of `readColors`. */
export function lineOf(section) {
  return LINES[section] ?? "line";
}

/** The sections that occur, in order. @returns {string[]} */
export function listSections(run, seq) {
  const found = new Set();
  for (let position = 0; position < seq; position++) found.add(sectionOf(run, position));
  return [...found];
}

/** Positions of a section; "all" for every one, "generation" for what the model wrote. */
export function positionsOf(run, seq, section) {
  const positions = [];
  for (let position = 0; position < seq; position++) {
    if (isIn(run, position, section)) positions.push(position);
  }
  return positions;
}

function isIn(run, position, section) {
  if (section === "all") return true;
  if (section !== "generation") return sectionOf(run, position) === section;
  const { role } = run.tokens[position];
  return position >= run.promptLength && (role === "assistant" || role === null);
}
