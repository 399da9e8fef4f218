/**
 * One row of a head's pattern: what one token, the query, attends to. The earlier tokens are
 * running text, shaded by weight, with the window edge between the last visible and the first
 * hidden key; the largest weights are a list, and the sink's share is a bar apart from the tokens.
 */

import { make, refill, tokenText } from "../elements.js";
import { makeVisible } from "../visible.js";
import { makeBar } from "./head_grid.js";

const PAGE = 400; // tokens of running text; all others are reached with the buttons
const STEP = PAGE / 2;
const NUMBERED = 8; // weights shown as numbers
const STRONGEST = 45; // percent of color in the darkest shade, so that text keeps its contrast

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
    this.root = make("div", {}, this.sum, this.bars, this.largest, this.shade, this.text, this.pager);
    element.append(this.root);
  }

  /**
   * Show a row.
   * @param {object} row
   * @param {import("./numbers.js").Numbers} row.numbers
   * @param {number} row.query
   * @param {number} row.first  the oldest visible key
   * @param {Float32Array} row.weights  [key]
   * @param {number | null} row.sink  the sink's share
   * @param {string} row.missing  why there is no sink, if there is none
   */
  update(row) {
    this.row = row;
    const { numbers, weights, sink } = row;
    this.total = weights.reduce((sum, weight) => sum + weight, 0);
    this.order = rankWeights(row, NUMBERED);
    this.scale = Math.abs(weights[this.order[0]] ?? 0);
    refill(this.sum, describeSum(row, this.total));
    const bars = sink === null ? [] : [["tokens", this.total], ["sink", sink]];
    refill(this.bars, bars.map(([name, value]) => makeBar(name, value)));
    this.bars.hidden = !bars.length;
    refill(this.largest, this.order.map((key) => this.makeItem(key)));
    this.shade.textContent =
      `The darkest shade and the tallest bar under a token is ${format(this.scale)}, the largest of this row.`;
    const isOnPage = this.start <= row.query && row.query < this.start + PAGE;
    if (this.named !== numbers || !isOnPage) this.showFrom(row.query - STEP);
    else this.paint();
  }

  /** Show the page of text that begins at or before a key. */
  showFrom(key) {
    const { numbers } = this.row;
    const last = Math.max(0, Math.floor((numbers.length - 1) / STEP) * STEP - STEP);
    this.start = Math.min(Math.max(0, Math.floor(key / STEP) * STEP), last);
    const count = Math.min(PAGE, numbers.length - this.start);
    this.named = numbers;
    this.spans = Array.from({ length: count }, (_, n) => {
      const span = numbers.tokens ? tokenText(numbers.tokens[this.start + n].text) : make("bdi", {}, `${this.start + n}`);
      span.dataset.key = this.start + n;
      return span;
    });
    refill(this.text, this.spans);
    this.paint();
  }

  /** Shade the tokens of the page; only their styles change while the query moves over a page. */
  paint() {
    const { query, first, weights } = this.row;
    const numbered = new Set(this.order);
    this.spans.forEach((span, n) => {
      const key = this.start + n;
      const isVisible = first <= key && key <= query;
      const share = isVisible && this.scale ? Math.abs(weights[key]) / this.scale : 0;
      span.hidden = key > query;
      span.className = className(key, query, isVisible);
      const color = `color-mix(in srgb, var(--oss-mark) ${share * STRONGEST}%, transparent)`;
      span.style.background = share > 0.004 ? color : "";
      span.style.boxShadow = share > 0.004 ? `inset 0 ${-4 * share}px var(--oss-mark)` : "";
      if (numbered.has(key)) span.dataset.weight = format(weights[key]);
      else delete span.dataset.weight;
    });
    this.placeEdge();
    this.scrollToQuery();
    const end = Math.min(this.start + PAGE, query + 1);
    this.range.textContent = `Tokens ${this.start} to ${end - 1} of 0 to ${query}.`;
    this.earlier.disabled = this.start === 0;
    this.later.disabled = this.start + PAGE > query;
    this.pager.hidden = this.earlier.disabled && this.later.disabled;
  }

  placeEdge() {
    const { first, numbers, layer } = this.row;
    const inside = this.spans[first - this.start];
    if (first === 0 || !inside) return this.edge.remove();
    const width = numbers.windowOf(layer);
    this.edge.textContent = `window edge: ${first} earlier tokens are hidden, ${width} are visible`;
    inside.before(this.edge);
  }

  /** Scroll the text, not the page. */
  scrollToQuery() {
    const { text } = this;
    const span = this.spans[this.row.query - this.start];
    if (!span) return;
    const bottom = span.offsetTop + span.offsetHeight + 8;
    if (span.offsetTop < text.scrollTop || bottom > text.scrollTop + text.clientHeight) {
      text.scrollTop = bottom - text.clientHeight;
    }
  }

  makeItem(key) {
    const { numbers, weights } = this.row;
    const show = () => {
      this.showFrom(key - STEP / 2);
      this.spans[key - this.start].scrollIntoView({ block: "nearest" });
    };
    const token = numbers.tokens ? tokenText(numbers.tokens[key].text) : null;
    const button = make("button", { type: "button", onclick: show }, token, ` token ${key}`);
    return make("li", {}, button, ` ${format(weights[key])}`);
  }

  handleClick(event) {
    const key = event.target.closest("[data-key]")?.dataset.key;
    if (key !== undefined) this.choose(Number(key));
  }

  /** The keys on the page as rows of a table: position, text, weight. */
  toRows() {
    const { numbers, query, first, weights } = this.row;
    const keys = this.spans.map((_, n) => this.start + n).filter((key) => key <= query);
    return keys.map((key) => [
      String(key),
      numbers.tokens ? makeVisible(numbers.tokens[key].text) : "",
      key < first ? "hidden by the window" : format(weights[key]),
    ]);
  }
}

/** A weight as text: four decimals, or as many as a small one needs. */
export function format(weight) {
  return weight !== 0 && Math.abs(weight) < 0.001 ? weight.toExponential(1) : weight.toFixed(4);
}

/** The visible keys with the largest weights, largest first. */
function rankWeights({ query, first, weights }, count) {
  const best = [];
  for (let key = first; key <= query; key++) {
    const size = Math.abs(weights[key]);
    if (best.length === count && size <= Math.abs(weights[best.at(-1)])) continue;
    const place = best.findIndex((other) => size > Math.abs(weights[other]));
    best.splice(place < 0 ? best.length : place, 0, key);
    if (best.length > count) best.pop();
  }
  return best;
}

function className(key, query, isVisible) {
  if (key === query) return "oss-token-text oss-attention-query";
  return isVisible ? "oss-token-text" : "oss-token-text oss-attention-hidden";
}

function describeSum({ numbers, sink, missing }, total) {
  if (numbers.unit !== null) return `The row sums to ${total.toFixed(4)} ${numbers.unit}.`;
  if (sink === null) return `Weights ${total.toFixed(4)}. ${missing}`;
  return `Weights ${total.toFixed(4)} + sink ${sink.toFixed(4)} = ${(total + sink).toFixed(4)}`;
}
