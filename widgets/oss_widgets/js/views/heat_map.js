/**
 * A map of cells, rows by columns, that scrolls and is usable with the keyboard.
 *
 * Only the visible cells are painted, so a map of 36 layers and 8,000 tokens scrolls smoothly. The
 * map has a cursor: arrow keys move it (Home, End, Page Up and Page Down too), Enter or Space
 * selects the cell, and a screen reader hears `describe` of the cell.
 */

import { make, refill } from "./elements.js";
import { makeLegend, paintLegend } from "./legend.js";
import { fitNames, paintMap } from "./map_picture.js";
import { CanvasPen, SvgPen } from "./pens.js";
import { onThemeChange, readColors } from "./theme.js";

const LEGEND_HEIGHT = 28; // pixels, in SVG
const TRIES = 3; // frames in which a map without a size is tried again
const PAGE = 10; // cells that Page Up and Page Down move
const MOVES = {
  ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0],
  PageDown: [0, PAGE], PageUp: [0, -PAGE], Home: [0, -Infinity], End: [0, Infinity],
}; // prettier-ignore

export class HeatMap {
  /** @param {HTMLElement} element @param {import("./map_picture.js").MapOptions} options */
  constructor(element, options) {
    this.cursor = { row: 0, column: 0 };
    this.selected = { row: null, column: null };
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.sizer = make("div", { class: "oss-map-sizer" }, this.canvas);
    this.root = make("div", {
      class: "oss-map", tabindex: "0", role: "application", "aria-roledescription": "map",
    }, this.sizer); // prettier-ignore
    this.spoken = make("div", { class: "oss-caption", role: "status" });
    this.legend = make("div");
    element.append(this.root, this.legend, this.spoken);
    this.root.addEventListener("scroll", () => this.requestPaint());
    this.root.addEventListener("keydown", (event) => this.handleKey(event));
    this.root.addEventListener("focus", () => this.speak());
    this.canvas.addEventListener("click", (event) => this.handleClick(event));
    this.canvas.addEventListener("mousemove", (event) => this.handleMove(event));
    this.resizes = new ResizeObserver(() => this.requestPaint());
    this.resizes.observe(this.root);
    this.stopTheme = onThemeChange(() => this.requestPaint());
    this.update(options);
  }

  /** Show other data. @param {Partial<import("./map_picture.js").MapOptions>} options */
  update(options) {
    this.given = { size: {}, aside: 0, tallest: 480, ...this.given, ...options };
    this.options = { ...this.given, ...fitNames(this.given) };
    const { rows, columns, label, header, gutter, aside, tallest, legend } = this.options;
    refill(this.legend, legend ? makeLegend(legend) : null);
    this.cursor.row = clamp(this.cursor.row, rows);
    this.cursor.column = clamp(this.cursor.column, columns);
    const { width, height } = this.cellSize();
    this.sizer.style.width = `${gutter + columns * width + aside}px`;
    this.sizer.style.height = `${header + rows * height}px`;
    this.root.style.height = `${Math.min(tallest, header + rows * height) + 18}px`;
    this.root.setAttribute("aria-label", `${label}. ${rows} rows, ${columns} columns.`);
    this.requestPaint();
  }

  cellSize() {
    const { width = 20, height = 20 } = this.options.size;
    return { width, height };
  }

  /** Outline a row and a column; null for none. Scrolls there if `isShown`. */
  setSelected(row, column, isShown = true) {
    this.selected = { row, column };
    if (row !== null) this.cursor.row = clamp(row, this.options.rows);
    if (column !== null) this.cursor.column = clamp(column, this.options.columns);
    if (isShown && (row !== null || column !== null)) this.scrollToCursor();
    this.requestPaint();
  }

  scrollToCursor() {
    const { width, height } = this.cellSize();
    const { gutter, header, aside } = this.options;
    const { row, column } = this.cursor;
    const view = this.root;
    const x = column * width;
    const y = row * height;
    const seenX = view.clientWidth - gutter - aside;
    const seenY = view.clientHeight - header;
    if (x < view.scrollLeft || x + width > view.scrollLeft + seenX) view.scrollLeft = x - seenX / 2;
    if (y < view.scrollTop || y + height > view.scrollTop + seenY) view.scrollTop = y - seenY / 2;
  }

  handleKey(event) {
    const { rows, columns, select } = this.options;
    if (!rows || !columns) return;
    const { row, column } = this.cursor;
    if (event.key === "Enter" || event.key === " ") select?.(row, column);
    else if (event.key in MOVES && !event.altKey && !event.ctrlKey && !event.metaKey) {
      const [down, right] = MOVES[event.key];
      this.cursor = { row: clamp(row + down, rows), column: clamp(column + right, columns) };
      this.scrollToCursor();
      this.speak();
      this.requestPaint();
    } else return;
    event.preventDefault();
  }

  cellAt(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const { gutter, header, aside, rows, columns } = this.options;
    const { width, height } = this.cellSize();
    const x = event.clientX - bounds.left - gutter;
    const y = event.clientY - bounds.top - header;
    if (x < 0 || x >= bounds.width - gutter - aside || y < -header) return null;
    const column = Math.floor((x + this.root.scrollLeft) / width);
    const row = y < 0 ? this.cursor.row : Math.floor((y + this.root.scrollTop) / height);
    return row < rows && column < columns ? { row, column } : null;
  }

  handleClick(event) {
    const place = this.cellAt(event);
    if (!place) return;
    this.cursor = place;
    this.speak();
    this.requestPaint();
    this.options.select?.(place.row, place.column);
  }

  handleMove(event) {
    const place = this.cellAt(event);
    this.canvas.title = place ? this.options.describe(place.row, place.column) : "";
  }

  speak() {
    const { rows, columns, describe } = this.options;
    const isEmpty = !rows || !columns;
    this.spoken.textContent = isEmpty ? "" : describe(this.cursor.row, this.cursor.column);
  }

  /** Paint in the next frame. JupyterLab hides the page for a frame when its theme changes. */
  requestPaint() {
    this.tries = TRIES;
    this.pending ??= requestAnimationFrame(() => this.tryToPaint());
  }

  tryToPaint() {
    this.tries -= 1;
    const isDone = this.paintCanvas() || !this.tries;
    this.pending = isDone ? null : requestAnimationFrame(() => this.tryToPaint());
  }

  /** @returns {boolean} whether there was room to paint */
  paintCanvas() {
    const { clientWidth: width, clientHeight: height } = this.root;
    if (!width || !height) return false;
    const ratio = window.devicePixelRatio || 1;
    const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== pixels[0] || this.canvas.height !== pixels[1]) {
      [this.canvas.width, this.canvas.height] = pixels;
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const isFocused = document.activeElement === this.root;
    this.paint(new CanvasPen(context), width, height, isFocused ? this.cursor : null);
    return true;
  }

  /** The visible part as SVG text, with the legend. */
  toSvg() {
    return this.drawSvg().toString();
  }

  /** The same as a pen, to be put into a larger picture. */
  drawSvg() {
    const { gutter, header, aside, rows, columns, label, legend } = this.options;
    const cell = this.cellSize();
    const width = Math.min(gutter + columns * cell.width + aside, this.root.clientWidth || Infinity);
    const height = Math.min(header + rows * cell.height, this.root.clientHeight || Infinity);
    const colors = readColors(this.root);
    const whole = height + (legend ? LEGEND_HEIGHT : 0);
    const pen = new SvgPen(width, whole, label);
    pen.rect(0, 0, width, whole, { fill: colors.paper });
    this.paint(pen, width, height, null);
    if (legend) paintLegend(pen, legend, 8, height + LEGEND_HEIGHT / 2, colors);
    return pen;
  }

  paint(pen, width, height, cursor) {
    const { scrollLeft: x, scrollTop: y } = this.root;
    const cell = this.cellSize();
    const view = { x, y, width, height, cell, selected: this.selected, cursor };
    paintMap(pen, this.options, view, readColors(this.root));
  }

  close() {
    this.stopTheme();
    this.resizes.disconnect();
    if (this.pending) cancelAnimationFrame(this.pending);
    this.root.remove();
    this.legend.remove();
    this.spoken.remove();
  }
}

function clamp(n, count) {
  return Math.min(Math.max(n, 0), Math.max(count - 1, 0));
}
