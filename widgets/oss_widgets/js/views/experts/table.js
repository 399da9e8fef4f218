/**
 * The map as a table: the tokens of one layer, one row each.
 */

import { makeTable } from "../elements.js";
import { short } from "../numbers.js";
import { makeVisible } from "../visible.js";
import { sectionOf } from "./sections.js";

const ROWS = 400; // a longer table is slow to read and to draw

/** @param {object} shown  see `makeRoutingMap` */
export function makeRoutingTable({ run, recordings, positions, measure, place, layers }) {
  const layer = layers.includes(place.layer) ? place.layer : layers[0];
  const at = Math.max(0, positions.indexOf(place.token));
  const from = Math.max(0, Math.min(at - ROWS / 2, positions.length - ROWS));
  const listed = positions.slice(from, from + ROWS);
  const rows = listed.map((position) => {
    const value = measure?.at(layer, position) ?? null;
    return [
    String(position), makeVisible(run.tokens[position].text), sectionOf(run, position),
    recordings.chosen(layer, position).map(({ expert, weight }) =>
      weight === null ? `${expert}` : `${expert} (${weight.toFixed(3)})`).join(", "),
    value === null ? "–" : short(value),
    ]; // prettier-ignore
  });
  const part = listed.length < positions.length ? `, ${listed.length} of ${positions.length} tokens` : "";
  const heads = ["position", "token", "section", "experts (weights)", measure?.name ?? "measure"];
  return makeTable(`Layer ${layer}${part}`, heads, rows);
}
