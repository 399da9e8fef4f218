/**
 * Logit lens: what every layer would predict after every token, and how likely each layer finds the
 * actual next token.
 */

import { make, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { term } from "../glossary.js";
import { HeatMap } from "../heat_map.js";
import { probability } from "../numbers.js";
import { makeScale } from "../scale.js";
import { readableText } from "../token_bytes.js";
import { makeLensDetail } from "./lens_detail.js";
import { LensCells } from "./lens_cells.js";
import { makeLensTable } from "./lens_table.js";

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
      this.frame.say("The logit lens needs a model; this source has only what was stored.");
      return;
    }
    const fail = (problem) => this.fail(problem);
    this.cells = new LensCells(source, (isLoading) => this.refresh(isLoading), fail);
    this.addLegend();
    this.map = new HeatMap(this.frame.body, this.mapOptions());
    this.map.root.addEventListener("scroll", () => this.wantVisible());
    this.resizes = new ResizeObserver(() => this.wantVisible());
    this.resizes.observe(this.map.root);
    const label = { role: "group", "aria-label": "Selected prediction" };
    this.detail = make("div", { class: "oss-lens-detail", ...label });
    this.frame.body.append(this.detail);
    this.frame.addExport(() => this.toSvg());
    this.save = this.frame.controls.lastChild;
    this.stops = [
      source.on("shown", (shown) => run || this.show(shown)),
      source.on("tokens", (grown) => grown === this.run && this.updateSoon()),
      selection.on(() => this.showSelected(true)),
    ];
    this.show(run ?? source.shown);
  }

  addLegend() {
    this.frame.controls.append(make("span", {}, "About the ", term("logit lens")));
    const words = "Text: the layer's most likely token. ✓: it is the actual next token.";
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
    this.save.hidden = cells.count === 0;
    map.update(this.mapOptions());
    this.updateTable();
    this.showSelected(false);
  }

  updateTable() {
    const { frame, cells, tokens, source } = this;
    frame.setTable(() => [makeLensTable(cells.columns, tokens, source.config)]);
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
      legend: { name: "probability of the actual next token", unit: "", scale: SCALE },
    };
  }

  drawCell(layer, position) {
    const cell = this.cells.columns[position]?.[layer];
    if (!cell) return null;
    const text = readableText(cell.topTexts[0], LONGEST);
    const isRight = cell.topIds[0] === this.tokens[position + 1].id;
    return { color: SCALE.color(Math.exp(cell.logprob)), text: isRight ? `✓ ${text}` : text };
  }

  describe(layer, position) {
    const [token, came] = [0, 1].map((n) => readableText(this.tokens[position + n].text));
    const place = `Layer ${layer}, after token ${position} “${token}”`;
    const cell = this.cells.columns[position]?.[layer];
    if (!cell) return `${place}: not computed yet.`;
    const [best, own] = [cell.topLogprobs[0], cell.logprob].map(probability);
    const top = `“${readableText(cell.topTexts[0])}” is the most likely (${best})`;
    return `${place}: ${top}; the actual next token is “${came}” (${own}, rank ${cell.rank + 1}).`;
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
    this.frame.report(isLoading ? "Computing what each layer predicts …" : "");
    this.map.requestPaint();
    this.updateTable();
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
    const { tokens, cells, detail } = this;
    if (column) refill(detail, makeLensDetail(column, layer, tokens[token], tokens[token + 1], token));
    else if (token !== null) refill(detail, make("p", {}, `Token ${token} is not computed yet.`));
    else refill(detail, make("p", {}, cells.count ? "Select a cell to see its numbers." : ""));
  }

  data() {
    const positions = [];
    this.cells?.columns.forEach((layers, position) => {
      const [token, came] = [0, 1].map((n) => this.tokens[position + n].id);
      positions.push({ position, token, came, layers });
    });
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
