/**
 * The map of layers by tokens: in each cell the first chosen expert, colored by a measure.
 */

import { short } from "../numbers.js";
import { makeVisible } from "../visible.js";
import { IDS } from "./recordings.js";
import { FLIP } from "./routing.js";
import { lineOf, sectionOf } from "./sections.js";

const LONGEST = 18; // characters of a token's name
const PLAIN = [150, 150, 150]; // cells without a measure

/**
 * @param {object} shown
 * @param {import("../../source/source.js").Run} shown.run
 * @param {import("./recordings.js").Recordings} shown.recordings
 * @param {number[]} shown.layers
 * @param {number[]} shown.positions  one for each column
 * @param {import("./measures.js").Measure | null} shown.measure
 * @param {{layer: number | null, expert: number | null}} shown.place  its cells are outlined
 * @param {Uint8Array[] | null} shown.flips  [layer][seq]
 * @returns {Partial<import("../map_picture.js").MapOptions>}
 */
export function makeRoutingMap(shown) {
  const { run, layers, positions, measure, recordings } = shown;
  const digits = String((recordings.source.config.num_experts ?? 100) - 1).length;
  return {
    label: measure ? `Layers by tokens, colored by ${measure.name}` : "Layers by tokens",
    rows: layers.length,
    columns: positions.length,
    rowName: (row) => `layer ${layers[row]}`,
    columnName: (column) => makeVisible(run.tokens[positions[column]].text, LONGEST),
    columnBand: (column) => lineOf(sectionOf(run, positions[column])),
    bandName: (column) => sectionOf(run, positions[column]),
    cell: (row, column) => makeCell(shown, layers[row], positions[column]),
    describe: (row, column) => describe(shown, layers[row], positions[column]),
    size: { width: Math.max(22, 7 * digits + 4), height: 20 },
    legend: measure ? { name: measure.name, unit: measure.unit, scale: measure.scale } : null,
  };
}

function makeCell({ recordings, measure, place, flips }, layer, position) {
  const ids = recordings.hasToken(position) ? recordings.get(IDS, layer) : null;
  const value = measure?.at(layer, position) ?? null;
  if (!ids && value === null) return null;
  const { slots } = recordings;
  const flip = flips?.[layer]?.[position] ?? FLIP.none;
  const uses = (expert) => ids?.subarray(position * slots, (position + 1) * slots).includes(expert);
  return {
    color: value === null ? PLAIN : measure.scale.color(value),
    text: ids ? `${ids[position * slots]}` : short(value),
    isMarked: layer === place.layer && place.expert !== null && uses(place.expert),
    isFlagged: flip === FLIP.flip,
    isHatched: flip === FLIP.noise,
  };
}

function describe({ run, recordings, measure, flips }, layer, position) {
  const token = makeVisible(run.tokens[position].text);
  const parts = [`layer ${layer}, token ${position} “${token}” (${sectionOf(run, position)})`];
  const chosen = recordings.chosen(layer, position);
  if (chosen.length) {
    const texts = chosen.map(({ expert, weight }) =>
      weight === null ? `${expert}` : `${expert} (${short(weight)})`,
    );
    parts.push(`experts ${texts.join(", ")}`);
  }
  const value = measure?.at(layer, position) ?? null;
  if (value !== null && measure.value !== "weight") {
    parts.push(`${measure.name} ${short(value)} ${measure.unit}`.trim());
  }
  const flip = flips?.[layer]?.[position];
  if (flip === FLIP.flip) parts.push("routing flip");
  if (flip === FLIP.noise) parts.push("routing flip within rounding noise");
  return `${parts.join("; ")}.`;
}
