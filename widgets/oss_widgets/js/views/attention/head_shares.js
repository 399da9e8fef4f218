/**
 * How much of its attention each head gives to tokens: 1 - sink mass, averaged by channel.
 */

/** A head is on if it gives tokens more than this share of its attention. */
export const ON = 0.5;

/** The parts of a run, in the order in which they are shown. */
const PARTS = ["prompt", "analysis", "commentary", "final"];

/** The part of a token; null for tokens of the reply between channels. */
export function partOf(run, position) {
  if (position < run.promptLength) return "prompt";
  const { channel } = run.tokens[position];
  return PARTS.includes(channel) ? channel : null;
}

/**
 * @param {import("../../source/source.js").Recording} sinks  [seq head]
 * @param {import("../../source/source.js").Run} run
 * @returns {{all: number | null, isOn: boolean, byChannel: Record<string, number | null>}[]}  one
 *   per head, with the channels that the run has; null was not recorded
 */
export function averageShares({ shape: [length, heads], data }, run) {
  const sums = new Map(["all", ...PARTS].map((part) => [part, new Float64Array(heads)]));
  const counts = new Map([...sums.keys()].map((part) => [part, new Uint32Array(heads)]));
  const present = new Set();
  for (let position = 0; position < length; position++) {
    const own = partOf(run, position);
    if (own !== null) present.add(own);
    for (const part of own === null ? ["all"] : ["all", own]) {
      for (let head = 0; head < heads; head++) {
        const sink = data[position * heads + head];
        if (Number.isNaN(sink)) continue; // not recorded
        sums.get(part)[head] += 1 - sink;
        counts.get(part)[head] += 1;
      }
    }
  }
  const mean = (part, head) => {
    const count = counts.get(part)[head];
    return count ? sums.get(part)[head] / count : null;
  };
  const parts = PARTS.filter((part) => present.has(part));
  return Array.from({ length: heads }, (_, head) => ({
    all: mean("all", head),
    isOn: mean("all", head) > ON,
    byChannel: Object.fromEntries(parts.map((part) => [part, mean(part, head)])),
  }));
}
