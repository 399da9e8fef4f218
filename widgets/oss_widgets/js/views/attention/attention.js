/**
 * Attention: what each head reads. An overview of a layer's heads with their share on tokens, one
 * query's weights as text, the pattern of one head as a map, and changes of a head.
 *
 * Follows `token` (the query), `layer` and `head` of the selection. Only what is visible is
 * requested from the source.
 */

import { make, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { term } from "../glossary.js";
import { HeadActions } from "./head_actions.js";
import { HeadGrid } from "./head_grid.js";
import { ON } from "./head_shares.js";
import { describeLayer, explainMissing, nameLayer } from "./layers.js";
import { PatternMap } from "./pattern_map.js";
import { PatternRows } from "./pattern_rows.js";
import { readArray, readRun } from "./patterns.js";
import { QueryChoice } from "./query_choice.js";
import { RowText } from "./row_text.js";
import { makeTables } from "./tables.js";

const SETTLE = 300; // milliseconds without a new token until a growing run is drawn again

/**
 * @param {HTMLElement} element
 * @param {import("../../source/source.js").Source} source
 * @param {import("../selection.js").Selection} selection
 * @param {object} [options]
 * @param {import("../../source/source.js").Run} [options.run]  instead of `source.shown`
 * @param {import("../../source/array.js").CallerArray} [options.array]  the caller's own numbers
 *   [head, seq, seq] instead of attention weights; else `source.array`
 * @returns {import("../frame.js").View}
 */
export function showAttention(element, source, selection, options = {}) {
  const view = new AttentionView(element, source, selection, options);
  return { close: () => view.close(), data: () => view.data(), toSvg: () => view.map.toSvg() };
}

class AttentionView {
  constructor(element, source, selection, options) {
    Object.assign(this, { source, selection, options, patterns: null, sinks: null });
    this.array = options.array ?? source.array ?? null;
    this.frame = makeFrame(element, "attention", "Attention");
    this.addControls();
    this.addParts((token) => selection.set({ token }));
    this.stops = [
      selection.on(() => this.follow()),
      source.on("shown", () => options.run || this.load()),
      source.on("tokens", (run) => run === this.run && this.waitForMore()),
    ];
    this.load();
  }

  addControls() {
    const { frame, selection } = this;
    const words = [term("head"), " · ", term("KV head"), " · ", term("sink"), " · ", term("window")];
    frame.explain(...words);
    const choose = () => selection.set({ layer: Number(this.layerChoice.value) });
    this.layerChoice = make("select", { onchange: choose });
    this.layerLabel = make("label", {}, "Layer", this.layerChoice);
    frame.controls.append(this.layerLabel);
    frame.addExport(() => this.map.toSvg());
  }

  addParts(choose) {
    const { frame } = this;
    this.rows = new PatternRows({
      arrive: () => this.drawRow(),
      wait: (range) => frame.report(range ? `Computing ${this.describeRange(range)} …` : ""),
      fail: (problem) => frame.fail(problem),
    });
    this.grid = new HeadGrid(frame.body, (head) => this.chooseHead(head));
    this.heading = make("h4", {});
    this.missing = make("div", {});
    this.one = make("div", {});
    frame.body.append(this.heading, this.missing, this.one);
    this.query = new QueryChoice(this.one, choose);
    this.row = new RowText(this.one, choose);
    this.map = new PatternMap(frame.body, this.rows, choose);
    this.map.root.addEventListener("toggle", () => this.markExport());
    this.actions = new HeadActions(frame.body, this.source, frame);
  }

  get run() {
    return this.options.run ?? this.source.shown;
  }

  chooseHead(head) {
    this.selection.set(this.array ? { head } : { layer: this.layer, head });
  }

  /** Draw again when a run that is being written pauses: every new token changes all averages. */
  waitForMore() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), SETTLE);
  }

  load() {
    const { frame, run, source, array } = this;
    clearTimeout(this.timer);
    frame.clearError();
    frame.body.hidden = frame.controls.hidden = !array && !run?.tokens.length;
    if (frame.body.hidden) return frame.say("Ask a question first.");
    try {
      this.patterns = array ? readArray(array, run) : readRun(source, run);
    } catch (problem) {
      this.patterns = null;
      frame.body.hidden = true;
      return frame.fail(problem);
    }
    const layers = Array.from({ length: this.patterns.layers }, (_, n) => {
      return make("option", { value: n }, nameLayer(this.patterns, n));
    });
    refill(this.layerChoice, layers);
    this.layerLabel.hidden = Boolean(array);
    this.pick();
    this.drawLayer();
  }

  /** What the selection names, or a default where it names nothing that exists. */
  pick() {
    const { layers, heads, length, hasPattern, hasSinks } = this.patterns;
    const all = Array.from({ length: layers }, (_, n) => n);
    const recorded = all.find(hasPattern) ?? all.find(hasSinks) ?? 0;
    const within = (n, count, otherwise) => (n !== null && 0 <= n && n < count ? n : otherwise);
    const { layer, head, token } = this.selection;
    this.layer = this.array ? 0 : within(layer, layers, recorded);
    this.head = within(head, heads, 0);
    this.token = within(token, length, length - 1);
  }

  follow() {
    if (!this.patterns) return;
    const { layer } = this;
    this.pick();
    if (layer !== this.layer) this.drawLayer();
    else this.drawHead();
  }

  /** Draws at once what is known, and the sink shares when they come. */
  async drawLayer() {
    const { patterns, layer, frame } = this;
    const isCurrent = () => patterns === this.patterns && layer === this.layer;
    frame.clearError();
    this.drawShares(null);
    if (!patterns.hasSinks(layer)) return;
    try {
      const sinks = await patterns.sinks(layer);
      if (isCurrent()) this.drawShares(sinks);
    } catch (problem) {
      if (isCurrent()) frame.fail(problem);
    }
  }

  drawShares(sinks) {
    const { patterns, layer } = this;
    this.sinks = sinks;
    this.grid.update(patterns, layer, sinks);
    this.frame.say(describeLayer(patterns, layer, this.grid.shares));
    this.drawHead();
  }

  drawHead() {
    const { patterns, layer, head, token, sinks } = this;
    const hasPattern = patterns.hasPattern(layer);
    this.layerChoice.value = layer;
    this.grid.mark(head);
    this.heading.textContent = this.nameHead();
    this.one.hidden = this.map.root.hidden = !hasPattern;
    refill(this.missing, explainMissing(patterns, layer, this.source));
    this.rows.reset(patterns, layer, head);
    if (hasPattern) {
      this.query.update(patterns, token);
      this.rows.want("row", token, token + 1);
      this.map.update({ patterns, layer, head, query: token, sinks });
    }
    this.drawRow();
    this.markExport();
    this.actions.update(patterns, layer, head);
  }

  /** The row of the query; nothing until it has come. */
  drawRow() {
    const { patterns, layer, head, token } = this;
    const weights = this.rows.get(token);
    const isRecorded = weights !== null && weights.some((weight) => !Number.isNaN(weight));
    this.row.root.classList.toggle("oss-attention-waits", weights === null);
    this.row.root.hidden = weights !== null && !isRecorded;
    if (this.row.root.hidden) {
      this.missing.textContent = `${patterns.name} of head ${head} was not recorded at token ${token}.`;
    }
    if (isRecorded) {
      this.row.update({ patterns, layer, query: token, weights, sink: this.sinkShare });
    }
    this.frame.setTable(() => this.makeTables(isRecorded));
    this.map.requestPaint();
  }

  /** Of the query; null if it is not known. */
  get sinkShare() {
    const share = this.sinks?.data[this.token * this.patterns.heads + this.head];
    return share === undefined || Number.isNaN(share) ? null : share;
  }

  nameHead() {
    const { patterns, layer, head, kvHead } = this;
    if (!patterns.heads) return "";
    return kvHead === null ? `Head ${head}` : `Head ${head} of layer ${layer}, KV head ${kvHead}`;
  }

  get kvHead() {
    const { kvHeads, heads } = this.patterns;
    return kvHeads === null ? null : Math.floor(this.head / (heads / kvHeads));
  }

  describeRange({ from, to }) {
    return `${this.patterns.name} of layer ${this.layer}, queries ${from} to ${to - 1}`;
  }

  /** Only an open map can be saved. */
  markExport() {
    const { root } = this.map;
    this.frame.controls.querySelector(".oss-save").hidden = !root.open || root.hidden;
  }

  makeTables(isRecorded) {
    const { patterns, layer, token } = this;
    return makeTables({
      layerName: nameLayer(patterns, layer),
      shares: this.grid.shares,
      rowTitle: `${this.nameHead()}: query token ${token}, the keys on the page of text`,
      unit: patterns.unit ?? "weight",
      rows: isRecorded ? this.row.toRows() : [],
    });
  }

  data() {
    if (!this.patterns) return null;
    const { patterns, layer, head, token, kvHead } = this;
    const weights = this.rows.get(token);
    return {
      name: patterns.name,
      unit: patterns.unit,
      run: patterns.run?.id ?? null,
      window: patterns.windowOf(layer) ?? null,
      layer, head, kvHead, token,
      weights: weights && Array.from(weights.slice(0, patterns.lastKey(token) + 1)),
      sink: this.sinkShare,
      threshold: ON,
      heads: this.grid.shares,
    }; // prettier-ignore
  }

  close() {
    clearTimeout(this.timer);
    for (const stop of this.stops) stop();
    this.rows.reset(null, null, null);
    this.actions.close();
    this.map.close();
    this.frame.close();
  }
}
