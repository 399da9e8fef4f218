/**
 * How a map of cells is painted, on a canvas or as SVG: the visible cells, their names, the
 * selected row and column, and the cursor.
 */

import { inkOn, toCss } from "./scale.js";

/** Pixels under the names of the columns, without and with names of the bands. */
const BAND = { plain: 4, named: 18 };

/**
 * @typedef {object} Cell
 * @property {[number, number, number]} color
 * @property {string} [text]  drawn in the cell if it fits
 * @property {boolean} [isMarked]  drawn with an outline
 * @property {boolean} [isFlagged]  drawn with a bar along its bottom
 * @property {boolean} [isHatched]  drawn with a stroke across
 *
 * @typedef {object} MapOptions
 * @property {string} label  accessible name
 * @property {number} rows
 * @property {number} columns
 * @property {(row: number) => string} rowName
 * @property {(column: number) => string} columnName  drawn upwards above the map
 * @property {(row: number, column: number) => Cell | null} cell  null is left empty
 * @property {(row: number, column: number) => string} describe  one sentence
 * @property {(row: number, column: number) => void} [select]
 * @property {(column: number) => string} [columnBand]  color of a line under a column's name: CSS, or
 *   a name of `readColors`
 * @property {(column: number) => string} [bandName]  written once over equal neighbors, if it fits
 * @property {{width?: number, height?: number}} [size]  of a cell, pixels
 * @property {number} [gutter]  pixels for the names of the rows; else as wide as the longest
 * @property {number} [header]  pixels for the names of the columns; else as tall as the longest
 * @property {import("./legend.js").Legend} [legend]
 * @property {number} [aside]  pixels at the right of the columns, for what `overlay` draws there
 * @property {(pen: object, place: Place, colors: object) => void} [overlay]  draws over the cells
 * @property {number} [tallest]  pixels; a taller map scrolls
 *
 * @typedef {object} Place  where the cells are, in pixels
 * @property {(column: number) => number} left
 * @property {(row: number) => number} top
 * @property {[number, number]} rows  first visible, and the one after the last
 * @property {[number, number]} columns
 * @property {{width: number, height: number}} cell
 * @property {number} right  end of the visible cells; the aside is there
 * @property {number} bottom
 */

/**
 * @param {import("./pens.js").CanvasPen | import("./pens.js").SvgPen} pen
 * @param {MapOptions} options
 * @param {object} whole
 * @param {number} whole.x  pixels scrolled
 * @param {number} whole.y
 * @param {number} whole.width  of the visible part, with the names and the aside
 * @param {number} whole.height
 * @param {{width: number, height: number}} whole.cell
 * @param {{row: number | null, column: number | null}} whole.selected
 * @param {{row: number, column: number} | null} whole.cursor  drawn while the map has the focus
 * @param {Record<string, string>} colors  of `readColors`
 */
export function paintMap(pen, options, whole, colors) {
  const { gutter, header, aside, overlay } = options;
  const view = { ...whole, width: whole.width - aside };
  const { x, y, width, height, cell } = view;
  const place = {
    left: (column) => gutter + column * cell.width - x,
    top: (row) => header + row * cell.height - y,
    rows: [
      Math.floor(y / cell.height),
      Math.min(options.rows, Math.ceil((y + height - header) / cell.height)),
    ],
    columns: [
      Math.floor(x / cell.width),
      Math.min(options.columns, Math.ceil((x + width - gutter) / cell.width)),
    ],
  };
  pen.clip(gutter, header, width - gutter, height - header);
  for (let row = place.rows[0]; row < place.rows[1]; row++) {
    for (let column = place.columns[0]; column < place.columns[1]; column++) {
      const found = options.cell(row, column);
      if (found) paintCell(pen, found, place.left(column), place.top(row), cell, colors);
    }
  }
  paintSelected(pen, options, view, place, colors);
  pen.unclip();
  paintRowNames(pen, options, view, place, colors);
  paintColumnNames(pen, options, view, place, colors);
  const right = Math.min(width, place.left(options.columns));
  const bottom = Math.min(height, place.top(options.rows));
  overlay?.(pen, { ...place, cell, right, bottom }, colors);
}

/**
 * The room that the names need, if the options do not say it.
 * @param {MapOptions} options
 * @returns {{gutter: number, header: number}}
 */
export function fitNames({ rows, columns, rowName, columnName, bandName, gutter, header }) {
  const band = bandName ? BAND.named : BAND.plain;
  return {
    gutter: gutter ?? clampNumber(longestWidth(rows, rowName) + 14, 48, 200),
    header: header ?? clampNumber(longestWidth(columns, columnName) + band + 10, 60, 220),
  };
}

/** About as many pixels as the longest name has at size 12. */
function longestWidth(count, nameOf) {
  let longest = 0;
  for (let n = 0; n < count; n++) {
    let units = 0;
    for (const character of nameOf(n)) units += character < "\u2e80" ? 1 : 2;
    longest = Math.max(longest, units);
  }
  return Math.ceil(longest * 7.3);
}

function clampNumber(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function paintCell(pen, found, x, y, cell, colors) {
  const gap = cell.width > 6 ? 1 : 0;
  const [width, height] = [cell.width - gap, cell.height - gap];
  pen.rect(x, y, width, height, { fill: toCss(found.color) });
  if (found.isHatched) pen.line(x, y + height, x + width, y, { stroke: inkOn(found.color), width: 1 });
  if (found.isMarked) {
    pen.rect(x, y, width, height, { stroke: colors.paper, width: 3 });
    pen.rect(x, y, width, height, { stroke: colors.cursor, width: 2 });
  }
  if (found.text && found.text.length * 7 <= cell.width - 2) {
    const lettering = { fill: inkOn(found.color), size: 11, anchor: "middle" };
    pen.text(x + width / 2, y + cell.height / 2, found.text, lettering);
  }
  if (found.isFlagged) {
    pen.rect(x, y + height - 5, width, 5, { fill: colors.paper });
    pen.rect(x, y + height - 4, width, 4, { fill: colors.mark });
  }
}

function paintSelected(pen, options, { cell, selected, cursor }, { left, top }, colors) {
  const line = { stroke: colors.mark, width: 2 };
  const { row, column } = selected;
  if (column !== null) {
    pen.rect(left(column) - 1, top(0), cell.width + 2, options.rows * cell.height, line);
  }
  if (row !== null) {
    pen.rect(left(0), top(row) - 1, options.columns * cell.width, cell.height + 2, line);
  }
  if (cursor === null) return;
  const box = [left(cursor.column) - 2, top(cursor.row) - 2, cell.width + 4, cell.height + 4];
  pen.rect(...box, { stroke: colors.paper, width: 4 });
  pen.rect(...box, { stroke: colors.cursor, width: 2 });
}

function paintRowNames(pen, { gutter, header, rowName }, { height, cell }, { top, rows }, colors) {
  const every = Math.ceil(13 / cell.height);
  pen.clip(0, header, gutter, height - header);
  for (let row = rows[0]; row < rows[1]; row++) {
    if (row % every) continue;
    const lettering = { fill: colors.ink, size: 12, anchor: "end" };
    pen.text(gutter - 6, top(row) + cell.height / 2, rowName(row), lettering);
  }
  pen.unclip();
}

function paintColumnNames(pen, options, { width, cell }, { left, columns }, colors) {
  const { gutter, header, columnName, columnBand, bandName } = options;
  const every = Math.ceil(13 / cell.width);
  const bottom = header - (bandName ? BAND.named : BAND.plain) - 4;
  pen.clip(gutter, 0, width - gutter, header);
  for (let column = columns[0]; column < columns[1]; column++) {
    if (columnBand) {
      const band = columnBand(column);
      pen.rect(left(column), header - 4, cell.width, 3, { fill: colors[band] ?? band });
    }
    if (column % every) continue;
    const lettering = { fill: colors.ink, size: 12, turn: -90, mono: true };
    pen.text(left(column) + cell.width / 2, bottom, columnName(column), lettering);
  }
  if (bandName) paintBandNames(pen, bandName, header, gutter, cell, left, columns, colors);
  pen.unclip();
}

/** The name of neighbors that share a band, at the first of them that is visible. */
function paintBandNames(pen, bandName, header, gutter, cell, left, columns, colors) {
  for (let column = columns[0]; column < columns[1]; ) {
    const name = bandName(column);
    let end = column + 1;
    while (end < columns[1] && bandName(end) === name) end++;
    const x = Math.max(left(column), gutter) + 1;
    if (name.length * 6.5 <= left(end) - x) {
      pen.text(x, header - 11, name, { fill: colors.ink, size: 11 });
    }
    column = end;
  }
}
