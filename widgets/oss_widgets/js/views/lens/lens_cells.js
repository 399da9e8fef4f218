/**
 * Every layer's predictions, requested from the source in blocks of positions as a view needs them.
 */

const BLOCK = 64;
const TOP = 5;

export class LensCells {
  /**
   * @param {import("../../source/source.js").Source} source
   * @param {(isLoading: boolean) => void} changed  called when predictions arrive
   * @param {(problem: Error) => void} fail
   */
  constructor(source, changed, fail) {
    Object.assign(this, { source, changed, fail, run: null, isLoading: false, wanted: [] });
    /** @type {import("../../analysis/lens.js").LensCell[][]} [position][layer], sparse */
    this.columns = [];
  }

  /** How many positions have a prediction to compare: all but the last token. */
  get count() {
    return Math.max((this.run?.tokens.length ?? 0) - 1, 0);
  }

  /** @param {import("../../source/source.js").Run | null} run */
  show(run) {
    this.run = run;
    this.columns = [];
    this.wanted = [];
  }

  /** Request the positions in these ranges, the first range first. @param {[number, number][]} ranges */
  async want(ranges) {
    this.wanted = ranges;
    if (this.isLoading) return;
    this.isLoading = true;
    try {
      for (let range = this.nextRange(); range; range = this.nextRange()) {
        this.changed(true);
        await this.load(range);
      }
    } catch (problem) {
      this.wanted = [];
      this.fail(problem);
    } finally {
      this.isLoading = false;
    }
    this.changed(false);
  }

  async load({ from, to }) {
    const { run, source } = this;
    const layers = await source.analyze(run, "lens", { from, to, top: TOP });
    if (run !== this.run) return;
    for (let n = from; n < to; n++) this.columns[n] = layers.map((cells) => cells[n - from]);
  }

  /** The first missing position that is wanted, and what is missing of its block after it. */
  nextRange() {
    for (const [first, end] of this.wanted) {
      for (let from = Math.max(first, 0); from < Math.min(end, this.count); from++) {
        if (this.columns[from]) continue;
        const last = Math.min((Math.floor(from / BLOCK) + 1) * BLOCK, this.count);
        let to = from + 1;
        while (to < last && !this.columns[to]) to += 1;
        return { from, to };
      }
    }
    return null;
  }
}
