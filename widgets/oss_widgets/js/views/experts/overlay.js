/**
 * Another run over the shown one: where the router chose other experts for the same tokens.
 */

import { make, makeTable, refill } from "../elements.js";
import { short } from "../numbers.js";
import { describeRun } from "../run_names.js";
import { IDS, MARGIN, Recordings, WEIGHTS } from "./recordings.js";
import { alignRuns, findFlips, FLIP, NOISE_MARGIN } from "./routing.js";

export class Overlay {
  /** @param {(run: object | null) => void} choose */
  constructor(source, choose) {
    this.source = source;
    this.other = null;
    this.asked = null; // the recordings of the comparison that is shown or awaited
    const take = () => choose(this.source.runs.find(({ id }) => id === this.select.value) ?? null);
    this.select = make("select", { onchange: take });
    this.control = make("label", {}, "Compare with", this.select);
    this.result = make("section", { "aria-label": "Comparison" });
  }

  /** Lists the runs that the shown one can be compared with. */
  list(run) {
    const others = this.source.runs.filter((each) => each !== run);
    if (!others.includes(this.other)) this.other = null;
    const option = (value, text) => make("option", { value }, text);
    const options = others.map((each) => option(each.id, describeRun(each)));
    refill(this.select, option("", "no other run"), options);
    this.select.value = this.other?.id ?? "";
    this.control.hidden = !others.length;
  }

  /**
   * Compares with `other`; null ends the comparison.
   * @param {Recordings} recordings  of the shown run
   * @returns {Promise<{flips: Uint8Array[] | null}>}  [layer][seq], values of `FLIP`
   */
  async compare(recordings, other) {
    this.other = other;
    this.select.value = other?.id ?? "";
    if (!other) return this.clear();
    const theirs = new Recordings(recordings.source, other);
    this.asked = theirs;
    await Promise.all([recordings, theirs].map((each) => each.load(IDS, WEIGHTS, MARGIN)));
    if (this.asked !== theirs) return { flips: null }; // another comparison was asked for since
    const places = alignRuns(recordings.run, other).map((place, n) =>
      recordings.hasToken(n) && theirs.hasToken(place) ? place : -1,
    );
    const layers = recordings.layers.filter((layer) => theirs.layers.includes(layer));
    const flips = [];
    for (const layer of layers) {
      const [a, b] = [recordings, theirs].map((each) => ({
        ids: each.get(IDS, layer), weights: each.get(WEIGHTS, layer), margins: each.get(MARGIN, layer),
      })); // prettier-ignore
      flips[layer] = findFlips(a, b, places, recordings.slots);
    }
    const isJudged = [recordings, theirs].every((each) => each.has(MARGIN) && each.has(WEIGHTS));
    this.draw(layers, flips, places, isJudged);
    return { flips };
  }

  clear() {
    this.asked = null;
    refill(this.result);
    return { flips: null };
  }

  draw(layers, flips, places, isJudged) {
    const compared = places.filter((place) => place >= 0).length;
    const count = (layer, kind) => flips[layer].filter((each) => each === kind).length;
    const total = layers.reduce((sum, layer) => sum + count(layer, FLIP.flip), 0);
    const noise = layers.reduce((sum, layer) => sum + count(layer, FLIP.noise), 0);
    const verdict =
      `${total} of ${compared * layers.length} choices are routing flips: another set of experts,` +
      ` or another first one. The ${compared} of ${places.length} tokens that both runs share are compared.`;
    const key = isJudged
      ? `A flip has a bar along the bottom of its cell. ${noise} more are hatched and not counted:` +
        ` their margin is below ${short(NOISE_MARGIN)} logits, where two engines disagree by rounding.`
      : "A flip has a bar along the bottom of its cell. Some may be rounding: margins are not recorded.";
    const rows = layers.map((layer) => [
      `layer ${layer}`, String(count(layer, FLIP.flip)), String(count(layer, FLIP.noise)),
    ]); // prettier-ignore
    refill(
      this.result,
      make("p", { class: "oss-experts-verdict" }, verdict),
      make("p", {}, key),
      makeTable("Routing flips by layer", ["layer", "flips", "within noise"], rows),
    );
  }
}
