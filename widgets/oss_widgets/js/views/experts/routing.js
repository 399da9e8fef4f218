/**
 * Counts over the router's choices: how often an expert is chosen, for which tokens, and where two
 * runs chose differently. The definitions are those of `oss_lab/analysis/routing/atlas.py`.
 *
 * The choices of a layer are one flat array of expert ids, [seq slot].
 */

/** A lift is claimed for tokens that have at least this many slots of the expert. */
export const FEWEST = 5;

/**
 * Router margins below this may flip by rounding alone. It is the power of ten above the largest
 * difference between the margins of two engines: nano in JavaScript and nano in PyTorch (float32,
 * reference kernels). Over 4,362 tokens of 32 replies to the gallery, in four layers, margins
 * differed by 2.6e-6 at most, and the logarithms of the ratio of the two largest weights by 3.6e-6.
 */
export const NOISE_MARGIN = 1e-5;

/** @typedef {Int32Array | Uint8Array} Ids */

/**
 * How many slots each expert has at some positions.
 * @param {Ids} ids
 * @param {number} slots
 * @param {number} experts
 * @param {number[]} positions
 * @returns {Uint32Array}  [expert]
 */
export function countLoad(ids, slots, experts, positions) {
  const counts = new Uint32Array(experts);
  for (const position of positions) {
    for (let n = position * slots; n < (position + 1) * slots; n++) counts[ids[n]] += 1;
  }
  return counts;
}

/**
 * The tokens that chose an expert. The lift is P(token | expert) / P(token): how many times as
 * often this token is among the expert's tokens as among all; null for fewer than `FEWEST` slots.
 * @param {Ids} ids
 * @param {number} slots
 * @param {{id: number, text: string}[]} tokens
 * @param {number[]} positions  those that count
 * @param {number} expert
 * @returns {{id: number, text: string, count: number, lift: number | null}[]}  highest lift first,
 *   then those without one, most frequent first
 */
export function findTopTokens(ids, slots, tokens, positions, expert) {
  const all = new Map();
  const chosen = new Map();
  let load = 0;
  for (const position of positions) {
    const { id } = tokens[position];
    all.set(id, (all.get(id) ?? 0) + 1);
    for (let n = position * slots; n < (position + 1) * slots; n++) {
      if (ids[n] !== expert) continue;
      const entry = chosen.get(id) ?? { id, text: tokens[position].text, count: 0 };
      entry.count += 1;
      chosen.set(id, entry);
      load += 1;
    }
  }
  const found = [...chosen.values()].map((entry) => ({
    ...entry,
    lift: entry.count < FEWEST ? null : entry.count / ((load * all.get(entry.id)) / positions.length),
  }));
  return found.sort((a, b) => (b.lift ?? 0) - (a.lift ?? 0) || b.count - a.count || a.id - b.id);
}

/**
 * Which position of another run has the same token in the same place: the equal beginning of both
 * prompts, their equal end, and the equal beginning of both replies. A prompt that differs in one
 * word, such as the effort, is compared around this word.
 * @param {{tokens: {id: number}[], promptLength: number}} run
 * @param {{tokens: {id: number}[], promptLength: number}} other
 * @returns {Int32Array}  [seq of `run`], -1 where nothing corresponds
 */
export function alignRuns(run, other) {
  const places = new Int32Array(run.tokens.length).fill(-1);
  const isEqual = (n, m) => run.tokens[n].id === other.tokens[m].id;
  const [here, there] = [run.promptLength, other.promptLength];
  const shorter = Math.min(here, there);
  let begin = 0;
  while (begin < shorter && isEqual(begin, begin)) places[begin] = begin++;
  for (let n = 1; n <= shorter - begin && isEqual(here - n, there - n); n++) places[here - n] = there - n;
  const left = Math.min(run.tokens.length - here, other.tokens.length - there);
  for (let n = 0; n < left && isEqual(here + n, there + n); n++) places[here + n] = there + n;
  return places;
}

/** What `findFlips` says about a position. */
export const FLIP = { none: 0, flip: 1, noise: 2 };

/**
 * Where two runs chose other experts in one layer: another set, or another first one. Whether the
 * set could flip by rounding is seen from the router margin; for the first one, from the difference
 * of the two largest logits, which is the logarithm of the ratio of their weights. The smaller
 * margin of the two runs decides. An unknown margin is taken as large.
 * @param {{ids: Ids, weights: Float32Array | null, margins: Float32Array | null}} a  of one layer
 * @param {{ids: Ids, weights: Float32Array | null, margins: Float32Array | null}} b
 * @param {Int32Array} places  of `alignRuns`
 * @param {number} slots
 * @returns {Uint8Array}  [seq], values of `FLIP`
 */
export function findFlips(a, b, places, slots) {
  return Uint8Array.from(places, (m, n) => {
    if (m < 0) return FLIP.none;
    const ours = a.ids.subarray(n * slots, (n + 1) * slots);
    const theirs = b.ids.subarray(m * slots, (m + 1) * slots);
    if (!ours.every((id) => theirs.includes(id))) {
      return judge(a.margins?.[n], b.margins?.[m]);
    }
    if (ours[0] === theirs[0]) return FLIP.none;
    return judge(leadOf(a.weights, n * slots), leadOf(b.weights, m * slots));
  });
}

function leadOf(weights, at) {
  return weights ? Math.log(weights[at] / weights[at + 1]) : undefined;
}

function judge(margin = Infinity, otherMargin = Infinity) {
  return Math.min(margin, otherMargin) < NOISE_MARGIN ? FLIP.noise : FLIP.flip;
}
