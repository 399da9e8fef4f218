/**
 * How much of its attention each head gives to tokens: 1 - sink mass, averaged by channel.
 */

/** A head is on if it gives tokens more than this share of its attention. */
export const ON = 0.5;

/** The parts of a run, in the order in which they are shown. */
export const PARTS = ["prompt", "analysis", "commentary", "final"];

/** The part of a token; null for tokens of the reply between channels. */
export function partOf(run, position) {
  if (position < run.promptLength) return "prompt";
  const { channel } = run.tokens[position];
  return PARTS.includes(channel) ? channel : null;
}

/**
 * @param {import("../../source/source.js").Recording} sinks  [seq head]
 * @param {import("../../source/source.js").Run} run
 * @returns {{all: number, isOn: boolean, byChannel: Record<string, number>}[]}  one per head; only
 *   channels that the run has
 */
export function averageShares({ shape: [length, heads], data }, run) {
  const sums = new Map(["all", ...PARTS].map((part) => [part, new Float64Array(heads)]));
  const counts = new Map([...sums.keys()].map((part) => [part, 0]));
  for (let position = 0; position < length; position++) {
    for (const part of ["all", partOf(run, position)]) {
      if (part === null) continue;
      counts.set(part, counts.get(part) + 1);
      const sum = sums.get(part);
      for (let head = 0; head < heads; head++) sum[head] += 1 - data[position * heads + head];
    }
  }
  const present = PARTS.filter((part) => counts.get(part));
  const mean = (part, head) => sums.get(part)[head] / counts.get(part);
  return Array.from({ length: heads }, (_, head) => ({
    all: mean("all", head),
    isOn: mean("all", head) > ON,
    byChannel: Object.fromEntries(present.map((part) => [part, mean(part, head)])),
  }));
}
