/**
 * Rows of one head's attention pattern, requested when they are needed and kept for a while.
 *
 * A source answers with all heads of the requested queries, so a request is at most `REQUEST`
 * numbers. One request runs at a time, and the next one is for what is visible then: a slow source
 * never computes rows that were scrolled past. An answer for an earlier selection is ignored.
 */

const REQUEST = 2 ** 20; // patterns in one answer, unless a single query has more
const KEPT = 2 ** 22; // patterns kept
const LEAST = 200; // rows kept of however many keys: more than are visible at once

export class PatternRows {
  /**
   * @param {object} calls
   * @param {() => void} calls.arrive  rows have come
   * @param {(range: {from: number, to: number} | null) => void} calls.wait  for these queries; null: done
   * @param {(problem: Error) => void} calls.fail
   */
  constructor(calls) {
    this.calls = calls;
    this.turn = 0;
    this.reset(null, null, null);
  }

  /** Show a head. Rows of others are forgotten, unless the whole layer is small enough to keep. */
  reset(patterns, layer, head) {
    const isSameLayer = patterns === this.patterns && layer === this.layer;
    if (isSameLayer && head === this.head) return;
    this.isSmall = patterns !== null && patterns.heads * patterns.length ** 2 <= KEPT;
    this.head = head;
    if (isSameLayer && this.isSmall) return;
    Object.assign(this, { patterns, layer, rows: new Map(), wanted: new Map(), hasFailed: false });
    this.turn += 1;
    this.calls.wait(null);
  }

  /** @returns {Float32Array | null}  the weights of a query over the keys; null: not here yet */
  get(query) {
    return this.rows.get(`${this.head} ${query}`) ?? null;
  }

  /**
   * Request the queries that somebody shows now.
   * @param {string} who  one range each; the range of the one who asked first is served first
   */
  want(who, from, to) {
    this.wanted.set(who, { from, to });
    this.fetchMissing();
  }

  async fetchMissing() {
    const { turn } = this;
    if (this.busy === turn || this.hasFailed) return;
    this.busy = turn;
    try {
      for (let next = this.nextRange(); next && turn === this.turn; next = this.nextRange()) {
        this.calls.wait(next);
        const recording = await this.patterns.rows(this.layer, next.from, next.to);
        if (turn !== this.turn) return;
        this.keep(recording, next.from);
        this.calls.arrive();
      }
    } catch (problem) {
      if (turn !== this.turn) return;
      this.hasFailed = true;
      this.calls.fail(problem);
    } finally {
      if (turn === this.turn) {
        this.busy = null;
        this.calls.wait(null);
      }
    }
  }

  /** The next piece that is wanted and missing. Pieces have fixed borders, so rows are asked once. */
  nextRange() {
    const { heads, length } = this.patterns;
    const size = Math.max(1, Math.floor(REQUEST / (heads * length)));
    for (const { from, to } of this.wanted.values()) {
      for (let query = from; query < to; query++) {
        if (this.get(query)) continue;
        const start = query - (query % size);
        return { from: start, to: Math.min(start + size, length) };
      }
    }
    return null;
  }

  keep({ shape: [count, heads, keys], data }, from) {
    for (let row = 0; row < count; row++) {
      for (let head = 0; head < heads; head++) {
        if (!this.isSmall && head !== this.head) continue;
        const begin = (row * heads + head) * keys;
        this.rows.set(`${head} ${from + row}`, data.slice(begin, begin + keys)); // the rest is freed
      }
    }
    const most = Math.max(LEAST, Math.floor(KEPT / keys));
    for (const key of this.rows.keys()) {
      if (this.rows.size <= most) break;
      this.rows.delete(key);
    }
  }
}
