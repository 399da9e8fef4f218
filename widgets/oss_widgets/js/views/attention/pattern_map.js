/**
 * The pattern of one head as a map: a row for each query, a column for each key. Later keys and
 * keys outside the window stay empty; the window edge is a line, and the sink's share is a column
 * apart from the keys. Only the visible rows are requested.
 */

import { make } from "../elements.js";
import { HeatMap } from "../heat_map.js";
import { short } from "../numbers.js";
import { inkOn, sequentialColor, signedColor, toCss } from "../scale.js";
import { makeVisible } from "../visible.js";

const CELL = 14; // pixels
const ASIDE = 56;
const OPEN = 2 ** 20; // numbers: a smaller pattern is shown at once, a larger one when it is opened
const [FIRST_STRONG, POP] = ["\u2068", "\u2069"]; // isolate Arabic from the number after it
const TICKS = [0, 0.01, 0.1, 0.25, 0.5, 1];

export class PatternMap {
  /**
   * @param {HTMLElement} element
   * @param {import("./pattern_rows.js").PatternRows} rows
   * @param {(query: number) => void} choose
   */
  constructor(element, rows, choose) {
    Object.assign(this, { rows, choose, map: null, place: null });
    this.summary = make("summary", {});
    this.legend = make("p", { class: "oss-caption" });
    this.root = make("details", { class: "oss-attention-map" }, this.summary, this.legend);
    this.root.addEventListener("toggle", () => this.root.open && this.place && this.draw());
    element.append(this.root);
  }

  get isOpen() {
    return this.root.open && this.map !== null;
  }

  /** @param {object} place  {patterns, layer, head, query, sinks} */
  update(place) {
    const before = this.place;
    this.place = place;
    if (place.patterns !== before?.patterns) {
      const { heads, length } = place.patterns;
      this.root.open = heads * length ** 2 <= OPEN;
      this.legend.replaceChildren(...makeLegend(place.patterns));
    }
    this.summary.textContent = `Map of head ${place.head}: queries down, keys across`;
    if (!this.root.open) return;
    const isSame = ["patterns", "layer", "head", "sinks"].every((part) => place[part] === before?.[part]);
    if (this.map && isSame) this.showQuery();
    else this.draw();
  }

  draw() {
    const { patterns, layer, head, sinks } = this.place;
    const options = {
      label: `Attention of head ${head} in layer ${layer}, queries by keys`,
      rows: patterns.length,
      columns: patterns.length,
      size: { width: CELL, height: CELL },
      gutter: patterns.tokens ? 92 : 48,
      header: patterns.tokens ? 104 : 48,
      aside: sinks ? ASIDE : 0,
      rowName: (n) => this.nameToken(n),
      columnName: (n) => this.nameToken(n),
      cell: (row, column) => this.makeCell(row, column),
      describe: (row, column) => this.describe(row, column),
      select: (row) => this.choose(row),
      overlay: (pen, where, colors) => this.paintOver(pen, where, colors),
    };
    if (this.map) this.map.update(options);
    else this.map = new HeatMap(this.root, options);
    this.showQuery();
  }

  showQuery() {
    const { query } = this.place;
    const isChosenHere = this.map.cursor.row === query;
    if (!isChosenHere) this.map.cursor.column = query;
    this.map.setSelected(query, null);
    if (!isChosenHere) this.showKeysOf(query);
  }

  /** Scroll to the newest keys of a query, and to the window edge if there is room for it. */
  showKeysOf(query) {
    const { root, options } = this.map;
    const seen = root.clientWidth - options.gutter - options.aside;
    const right = (query + 2) * CELL;
    const left = Math.max((this.firstKey(query) - 1) * CELL, right - 0.8 * seen);
    if (left < root.scrollLeft || right > root.scrollLeft + seen) root.scrollLeft = right - 0.9 * seen;
  }

  nameToken(n) {
    const { tokens } = this.place.patterns;
    return tokens ? `${FIRST_STRONG}${makeVisible(tokens[n].text, 7)}${POP} ${n}` : String(n);
  }

  firstKey(query) {
    return this.place.patterns.firstKey(this.place.layer, query);
  }

  makeCell(query, key) {
    if (key > this.place.patterns.lastKey(query) || key < this.firstKey(query)) return null;
    const row = this.rows.get(query);
    return row === null || Number.isNaN(row[key]) ? null : { color: this.colorOf(row[key]) };
  }

  colorOf(weight) {
    const { unit, largest } = this.place.patterns;
    return unit === null
      ? sequentialColor(Math.sqrt(Math.max(weight, 0)))
      : signedColor(weight / (largest || 1));
  }

  describe(query, key) {
    const { patterns, sinks, head } = this.place;
    const pair = `query ${this.nameToken(query)}, key ${this.nameToken(key)}: `;
    const sink = sinks ? `; sink ${short(sinks.data[query * patterns.heads + head])}` : "";
    if (key > patterns.lastKey(query)) return `${pair}later than the query${sink}`;
    if (key < this.firstKey(query)) return `${pair}outside the window${sink}`;
    const row = this.rows.get(query);
    return `${pair}${row ? short(row[key]) : "not computed yet"}${sink}`;
  }

  paintOver(pen, where, colors) {
    const [from, to] = where.rows;
    if (from < to) this.rows.want("map", from, to);
    const { gutter, header } = this.map.options;
    pen.clip(gutter, header, where.right - gutter, where.bottom - header);
    for (let query = from; query < to; query++) this.paintEdges(pen, where, colors, query);
    this.nameEdge(pen, where, colors);
    pen.unclip();
    if (this.place.sinks) this.paintSinks(pen, where, colors);
  }

  /** The diagonal, the window edge, and a dash through a row that has not come yet. */
  paintEdges(pen, { left, top, right, cell }, colors, query) {
    const y = top(query);
    const end = left(this.place.patterns.lastKey(query) + 1);
    const first = this.firstKey(query);
    pen.line(end, y, end, y + cell.height, { stroke: colors.line });
    if (!this.rows.get(query)) {
      const middle = y + cell.height / 2;
      pen.line(left(first), middle, Math.min(end, right), middle, { stroke: colors.faint, dash: [2, 4] });
    }
    if (first === 0) return;
    const edge = { stroke: colors.mark, width: 2 };
    pen.line(left(first), y, left(first), y + cell.height, edge);
    pen.line(left(first - 1), y, left(first), y, edge);
  }

  /** Beside the edge, in the lowest row that has the room. */
  nameEdge(pen, { left, top, rows: [from, to], bottom, cell }, colors) {
    const { gutter } = this.map.options;
    for (let query = to - 1; query >= from; query--) {
      const x = left(this.firstKey(query)) - 8;
      if (this.firstKey(query) === 0 || x < gutter + 90 || top(query + 1) > bottom) continue;
      const lettering = { fill: colors.mark, anchor: "end", bold: true };
      return pen.text(x, top(query) + cell.height / 2, "window edge", lettering);
    }
  }

  paintSinks(pen, { top, rows: [from, to], right, bottom, cell }, colors) {
    const { sinks, patterns, head } = this.place;
    const { header } = this.map.options;
    const [x, width] = [right + 12, ASIDE - 14];
    pen.text(x, header - 12, "sink", { fill: colors.ink, bold: true });
    pen.clip(x, header, width, bottom - header);
    for (let query = from; query < to; query++) {
      const share = sinks.data[query * patterns.heads + head];
      if (Number.isNaN(share)) continue; // not recorded
      const color = sequentialColor(Math.sqrt(Math.max(share, 0)));
      pen.rect(x, top(query), width, cell.height - 1, { fill: toCss(color) });
      const lettering = { fill: inkOn(color), size: 11, anchor: "middle" };
      pen.text(x + width / 2, top(query) + cell.height / 2, share.toFixed(2), lettering);
    }
    pen.unclip();
  }

  /** Paint again: rows have come. */
  requestPaint() {
    if (this.isOpen) this.map.requestPaint();
  }

  toSvg() {
    return this.isOpen ? this.map.toSvg() : null;
  }

  close() {
    this.map?.close();
  }
}

function makeLegend({ unit, largest }) {
  if (unit !== null) {
    const end = short(largest);
    return [`Color: blue −${end}, white 0, orange ${end} ${unit}.`];
  }
  const ticks = TICKS.map((weight) => {
    const swatch = make("span", { class: "oss-attention-swatch", "aria-hidden": "true" });
    swatch.style.background = toCss(sequentialColor(Math.sqrt(weight)));
    return make("span", { class: "oss-attention-tick" }, swatch, String(weight));
  });
  return ["Weight: ", ...ticks, "Empty: later keys, and keys outside the window, whose edge is the line."];
}
