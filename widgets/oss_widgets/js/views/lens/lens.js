/**
 * Logit lens: what every layer would predict after every token, and how likely each layer finds the
 * token that came.
 */

import { make, makeTable, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { term } from "../glossary.js";
import { HeatMap } from "../heat_map.js";
import { showProbability } from "../probability_list.js";
import { makeScale } from "../scale.js";
import { readableText } from "../token_bytes.js";
import { makeLensDetail } from "./lens_detail.js";
import { LensCells } from "./lens_cells.js";

const SIZE = { width: 84, height: 26 }; // of a cell, pixels
const LONGEST = 9; // characters of a token in a cell
const SCALE = makeScale(0, 1); // of probabilities
const QUIET = 200; // ms without a new token before a growing run is read

/** @typedef {import("../../source/source.js").Run} Run */

/**
 * @param {HTMLElement} element
 * @param {import("../../source/source.js").Source} source
 * @param {import("../selection.js").Selection} selection
 * @param {{run?: Run}} [options]
 * @returns {import("../frame.js").View}
 */
export function showLens(element, source, selection, options = {}) {
  return new LensView(element, source, selection, options);
}

class LensView {
  constructor(element, source, selection, { run = null }) {
    Object.assign(this, { source, selection, stops: [] });
    this.frame = makeFrame(element, "lens", "Logit lens");
    if (!source.can.has("lens")) {
      this.frame.say("The logit lens needs a model or a trace with the residual stream; this one has none.");
      return;
    }
    this.cells = new LensCells(source, (isLoading) => this.refresh(isLoading), (problem) => this.fail(problem));
    this.addLegend();
    this.map = new HeatMap(this.frame.body, this.mapOptions());
    this.map.root.addEventListener("scroll", () => this.wantVisible());
    this.resizes = new ResizeObserver(() => this.wantVisible());
    this.resizes.observe(this.map.root);
    this.detail = make("div", { class: "oss-lens-detail", role: "group", "aria-label": "Selected prediction" });
    this.frame.body.append(this.detail);
    this.frame.addExport(() => this.toSvg());
    this.stops = [
      source.on("shown", (shown) => run || this.show(shown)),
      source.on("tokens", (grown) => grown === this.run && this.updateSoon()),
      selection.on(() => this.showSelected(true)),
    ];
    this.show(run ?? source.shown);
  }

  addLegend() {
    this.frame.controls.append(make("span", {}, "About the ", term("logit lens")));
    const words = "Text: the layer's most likely token. ✓: it is the one that came.";
    this.frame.body.before(make("p", { class: "oss-lens-legend" }, words));
  }

  get tokens() {
    return this.run?.tokens ?? [];
  }

  /** @param {Run | null} run */
  show(run) {
    this.run = run;
    this.frame.clearError();
    this.cells.show(run);
    this.update();
  }

  updateSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.update(), QUIET);
  }

  update() {
    const { map, frame, cells } = this;
    frame.say(describeRun(this.run));
    map.root.hidden = cells.count === 0;
    map.update(this.mapOptions());
    frame.setTable(() => [this.makeTable()]);
    this.showSelected(false);
  }

  mapOptions() {
    return {
      label: "Logit lens, layers by tokens",
      rows: this.source.config.num_hidden_layers,
      columns: this.cells.count,
      rowName: (layer) => `layer ${layer}`,
      columnName: (position) => readableText(this.tokens[position].text, 10),
      cell: (layer, position) => this.drawCell(layer, position),
      describe: (layer, position) => this.describe(layer, position),
      select: (layer, position) => this.selection.set({ layer, token: position }),
      size: SIZE,
      legend: { name: "probability of the token that came", unit: "", scale: SCALE },
    };
  }

  drawCell(layer, position) {
    const cell = this.cells.columns[position]?.[layer];
    if (!cell) return null;
    const text = readableText(cell.topTexts[0], LONGEST);
    return { color: SCALE.color(Math.exp(cell.logprob)), text: this.isRight(cell, position) ? `✓ ${text}` : text };
  }

  isRight(cell, position) {
    return cell.topIds[0] === this.tokens[position + 1].id;
  }

  describe(layer, position) {
    const place = `Layer ${layer}, after token ${position} “${readableText(this.tokens[position].text)}”`;
    const cell = this.cells.columns[position]?.[layer];
    if (!cell) return `${place}: not computed yet.`;
    const top = `“${readableText(cell.topTexts[0])}” is the most likely (${showProbability(cell.topLogprobs[0])})`;
    const came = readableText(this.tokens[position + 1].text);
    return `${place}: ${top}; “${came}” came (${showProbability(cell.logprob)}, rank ${cell.rank + 1}).`;
  }

  /** Request the visible positions, the selected one, and one screen more on each side. */
  wantVisible() {
    const { scrollLeft, clientWidth } = this.map.root;
    if (!this.cells.count || !clientWidth) return;
    const first = Math.floor(scrollLeft / SIZE.width);
    const seen = Math.ceil(clientWidth / SIZE.width);
    const { token } = this.selection;
    const ranges = [[first, first + seen], [first - seen, first + 2 * seen]];
    if (token !== null) ranges.unshift([token, token + 1]);
    this.cells.want(ranges);
  }

  refresh(isLoading) {
    this.frame.report(isLoading ? "Reading what each layer predicts…" : "");
    this.map.requestPaint();
    this.showDetail();
  }

  fail(problem) {
    this.frame.report("");
    this.frame.fail(problem);
  }

  showSelected(isShown) {
    const { token, layer } = this.place();
    const isNew = token !== null && token !== this.map.selected.column; // the run has reached it
    this.map.setSelected(layer, token, isShown || isNew);
    this.wantVisible();
    this.showDetail();
  }

  /** The selection, with null for what does not exist here. */
  place() {
    const { token, layer } = this.selection;
    return {
      token: token !== null && token < this.map.options.columns ? token : null,
      layer: layer !== null && layer < this.source.config.num_hidden_layers ? layer : null,
    };
  }

  showDetail() {
    const { token, layer } = this.place();
    const column = this.cells.columns[token];
    const shown = JSON.stringify([this.run?.id, this.cells.count, token, layer, column !== undefined]);
    if (shown === this.shown) return; // keeps the focus on its buttons
    this.shown = shown;
    if (token === null) refill(this.detail, make("p", {}, this.cells.count ? "Choose a cell to see its numbers." : ""));
    else if (!column) refill(this.detail, make("p", {}, `Token ${token} is not computed yet.`));
    else refill(this.detail, makeLensDetail(column, layer, this.tokens[token], this.tokens[token + 1], token));
  }

  /** The positions that were computed, as numbers. */
  get computed() {
    return Object.keys(this.cells?.columns ?? []).map(Number);
  }

  makeTable() {
    const layers = Array.from({ length: this.source.config.num_hidden_layers }, (_, layer) => layer);
    const show = (cell) => `${readableText(cell.topTexts[0])} (came: ${showProbability(cell.logprob)})`;
    const rows = this.computed.map((position) => [
      `${position}`,
      readableText(this.tokens[position].text),
      readableText(this.tokens[position + 1].text),
      ...layers.map((layer) => show(this.cells.columns[position][layer])),
    ]);
    const heads = ["Position", "Token", "Came", ...layers.map((layer) => `Layer ${layer}`)];
    return makeTable("The positions that were computed so far", heads, rows);
  }

  data() {
    const positions = this.computed.map((position) => ({
      position,
      token: this.tokens[position].id,
      came: this.tokens[position + 1].id,
      layers: this.cells.columns[position],
    }));
    return { run: this.run?.id ?? null, positions };
  }

  toSvg() {
    return this.cells?.count ? this.map.toSvg() : null;
  }

  close() {
    clearTimeout(this.timer);
    for (const stop of this.stops) stop();
    this.resizes?.disconnect();
    this.map?.close();
    this.frame.close();
  }
}

function describeRun(run) {
  if (!run) return "There are no tokens yet. Ask a question first.";
  if (run.tokens.length < 2) return "The logit lens needs at least two tokens.";
  return "What each layer would predict if it were the last, after each token. Layer 0 is at the top.";
}
