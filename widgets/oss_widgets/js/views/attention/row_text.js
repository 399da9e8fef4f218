/**
 * One row of a head's pattern: what one token, the query, attends to. The earlier tokens are
 * running text, shaded by weight, with the window edge between the last visible and the first
 * hidden key; the largest weights are a list, and the sink's share is a bar apart from the tokens.
 */

import { make, refill, tokenText } from "../elements.js";
import { short } from "../numbers.js";
import { makeVisible } from "../visible.js";
import { makeBar } from "./head_grid.js";

const PAGE = 256; // tokens of running text; all others are reached with the buttons
const STEP = PAGE / 2;
const NUMBERED = 8; // weights shown as numbers

export class RowText {
  /** @param {HTMLElement} element @param {(query: number) => void} choose */
  constructor(element, choose) {
    this.choose = choose;
    this.sum = make("p", { class: "oss-attention-sum" });
    this.bars = make("div", { class: "oss-attention-bars" });
    this.largest = make("ol", { class: "oss-attention-largest", "aria-label": "Largest weights" });
    this.range = make("span", {});
    const page = (text, move) => {
      return make("button", { type: "button", onclick: () => this.showFrom(this.start + move) }, text);
    };
    this.earlier = page("Earlier tokens", -STEP);
    this.later = page("Later tokens", STEP);
    this.edge = make("span", { class: "oss-attention-edge" });
    this.text = make("div", {
      class: "oss-attention-text", tabindex: "0", role: "region", "aria-label": "Tokens shaded by weight",
      onclick: (event) => this.handleClick(event),
    }); // prettier-ignore
    this.pager = make("div", { class: "oss-controls" }, this.earlier, this.later, this.range);
    this.shade = make("p", { class: "oss-caption" });
    const lead = make("div", { class: "oss-caption", "aria-hidden": "true" }, "Largest weights:");
    const { sum, bars, largest, shade, text, pager } = this;
    this.root = make("div", {}, sum, bars, lead, largest, shade, text, pager);
    element.append(this.root);
  }

  /**
   * Show a row.
   * @param {object} row
   * @param {import("./patterns.js").Patterns} row.patterns
   * @param {number} row.query
   * @param {Float32Array} row.weights  [key]
   * @param {number | null} row.sink  the sink's share; null if it is not known
   */
  update(row) {
    const { patterns, layer, query, weights, sink } = row;
    const [first, last] = [patterns.firstKey(layer, query), patterns.lastKey(query)];
    this.row = { ...row, first, last };
    this.total = weights.reduce((sum, weight) => sum + weight, 0);
    this.order = rankWeights(this.row, NUMBERED);
    this.scale = Math.abs(weights[this.order[0]] ?? 0);
    refill(this.sum, describeSum(row, this.total));
    const bars = sink === null ? [] : [["tokens", this.total], ["sink", sink]];
    refill(this.bars, bars.map(([name, value]) => makeBar(name, value)));
    this.bars.hidden = !bars.length;
    refill(this.largest, this.order.map((key) => this.makeItem(key)));
    this.shade.textContent = `Shade and bar under a token: weight, up to ${short(this.scale)}, the largest.`;
    const isMoved = this.named !== patterns || this.shownQuery !== query;
    const isOnPage = this.named === patterns && this.start <= query && query < this.start + PAGE;
    this.shownQuery = query;
    if (isMoved && !isOnPage) this.showFrom(query - STEP);
    else this.paint();
    if (isMoved) this.scrollSoon(query);
  }

  /** Show the page of text that begins at or before a key. */
  showFrom(key) {
    const { patterns } = this.row;
    const last = Math.max(0, Math.floor((patterns.length - 1) / STEP) * STEP - STEP);
    this.start = Math.min(Math.max(0, Math.floor(key / STEP) * STEP), last);
    const count = Math.min(PAGE, patterns.length - this.start);
    this.named = patterns;
    this.looks = [];
    this.spans = Array.from({ length: count }, (_, n) => {
      const key = this.start + n;
      const span = patterns.tokens ? tokenText(patterns.tokens[key].text) : make("bdi", {}, `${key} `);
      span.dataset.key = key;
      return span;
    });
    refill(this.text, this.spans);
    this.paint();
  }

  /** Shade the tokens of the page; a token that looks as before is left alone, which is fast. */
  paint() {
    const { last } = this.row;
    this.spans.forEach((span, n) => {
      const look = this.lookOf(this.start + n);
      if (look.join() === this.looks[n]?.join()) return;
      this.looks[n] = look;
      const [kind, share, number] = look;
      span.hidden = kind === "later";
      span.className = `oss-token-text oss-attention-${kind}`;
      span.style.setProperty("--share", share);
      span.dataset.weight = number;
    });
    this.placeEdge();
    const end = Math.min(this.start + PAGE, last + 1);
    this.range.textContent = `Tokens ${this.start} to ${end - 1} of 0 to ${last}.`;
    this.earlier.disabled = this.start === 0;
    this.later.disabled = this.start + PAGE > last;
    this.pager.hidden = this.earlier.disabled && this.later.disabled;
  }

  /** Kind of key, share of the largest weight, and the weight as text if it is one of the largest. */
  lookOf(key) {
    const { query, first, last, weights } = this.row;
    if (key > last) return ["later", "0", ""];
    if (key < first) return ["hidden", "0", ""];
    const share = this.scale ? Math.abs(weights[key]) / this.scale : 0;
    const number = this.order.includes(key) ? short(Number(weights[key].toPrecision(2))) : "";
    return [key === query ? "query" : "visible", share.toFixed(2), number];
  }

  placeEdge() {
    const { first, patterns, layer } = this.row;
    const inside = this.spans[first - this.start];
    if (first === 0 || !inside) return this.edge.remove();
    const width = patterns.windowOf(layer);
    this.edge.textContent = `window edge: ${first} earlier tokens are hidden, ${width} are visible`;
    inside.before(this.edge);
  }

  /** Scroll to a key when this frame is drawn, since reading places earlier costs a second layout. */
  scrollSoon(key) {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.scrollTo(key));
  }

  /** Scroll the text, not the page. */
  scrollTo(key) {
    const { text } = this;
    const span = this.spans[key - this.start];
    const bottom = span.offsetTop + span.offsetHeight + 8;
    if (span.offsetTop < text.scrollTop || bottom > text.scrollTop + text.clientHeight) {
      text.scrollTop = bottom - text.clientHeight;
    }
  }

  makeItem(key) {
    const { patterns, weights } = this.row;
    const show = () => {
      this.showFrom(key - STEP / 2);
      this.scrollSoon(key);
    };
    const token = patterns.tokens ? tokenText(patterns.tokens[key].text) : null;
    const button = make("button", { type: "button", onclick: show }, token, ` token ${key}`);
    return make("li", {}, button, ` ${short(weights[key])}`);
  }

  handleClick(event) {
    const key = event.target.closest("[data-key]")?.dataset.key;
    if (key !== undefined) this.choose(Number(key));
  }

  /** The keys on the page as rows of a table: position, text, weight. */
  toRows() {
    const { patterns, first, last, weights } = this.row;
    const keys = this.spans.map((_, n) => this.start + n).filter((key) => key <= last);
    return keys.map((key) => [
      String(key),
      patterns.tokens ? makeVisible(patterns.tokens[key].text) : "",
      key < first ? "hidden by the window" : short(weights[key]),
    ]);
  }
}

/** The visible keys with the largest weights, largest first. */
function rankWeights({ first, last, weights }, count) {
  const best = [];
  for (let key = first; key <= last; key++) {
    const size = Math.abs(weights[key]);
    if (size === 0 || Number.isNaN(size)) continue;
    if (best.length === count && size <= Math.abs(weights[best.at(-1)])) continue;
    const place = best.findIndex((other) => size > Math.abs(weights[other]));
    best.splice(place < 0 ? best.length : place, 0, key);
    if (best.length > count) best.pop();
  }
  return best;
}

function describeSum({ patterns, sink }, total) {
  if (patterns.unit !== null) return `The row sums to ${total.toFixed(4)} ${patterns.unit}`.trim();
  if (sink === null) return `Weights ${total.toFixed(4)}; the sink's share is not known`;
  return `Weights ${total.toFixed(4)} + sink ${sink.toFixed(4)} = ${(total + sink).toFixed(4)}`;
}
