/**
 * What the color of the map shows: a number of the router for each layer and token.
 *
 * @typedef {object} Measure
 * @property {string} value  for the choice
 * @property {string} name
 * @property {string} unit
 * @property {string | null} point  that must be loaded
 * @property {(layer: number, position: number) => number | null} at
 * @property {import("../scale.js").Scale} scale
 */

import { fitScale, makeScale } from "../scale.js";
import { ENTROPY, MARGIN, WEIGHTS } from "./recordings.js";

const KINDS = {
  weight: { name: "weight of the first expert", unit: "share", point: WEIGHTS },
  margin: { name: "router margin", unit: "logits", point: MARGIN },
  entropy: { name: "router entropy", unit: "nats", point: ENTROPY },
};

/** The measures that a run has, as choices. */
export function listMeasures(recordings, array) {
  const names = Object.keys(KINDS).filter((value) => recordings.has(KINDS[value].point));
  const own = array ? [{ value: "array", text: array.name, hint: array.unit }] : [];
  return [...own, ...names.map((value) => ({ value, text: value, hint: KINDS[value].name }))];
}

/**
 * Requests what a measure needs.
 * @param {import("./recordings.js").Recordings} recordings
 * @returns {Promise<Measure>}
 */
export async function loadMeasure(recordings, value, array) {
  if (value === "array") return makeArrayMeasure(array);
  const { name, unit, point } = KINDS[value];
  await recordings.load(point);
  const width = value === "weight" ? recordings.slots : 1;
  const at = (layer, position) => {
    const found = recordings.get(point, layer)?.[position * width] ?? NaN;
    return Number.isNaN(found) ? null : found;
  };
  const all = () => recordings.layers.map((layer) => recordings.get(point, layer));
  const scale = value === "weight" ? makeScale(1 / recordings.slots, 1) : fitScale(concatenate(all()));
  return { value, name, unit, point, at, scale };
}

function makeArrayMeasure({ values, layers, seq, slots, name, unit }) {
  const at = (layer, position) => {
    const value = layer < layers ? values[(layer * seq + position) * slots] : NaN;
    return Number.isNaN(value) ? null : value;
  };
  const which = slots > 1 ? `${name}, first slot` : name;
  const first = slots > 1 ? values.filter((_, n) => n % slots === 0) : values;
  return { value: "array", name: which, unit, point: null, at, scale: fitScale(first) };
}

function concatenate(arrays) {
  const whole = new Float32Array(arrays.reduce((total, { length }) => total + length, 0));
  let at = 0;
  for (const array of arrays) {
    whole.set(array, at);
    at += array.length;
  }
  return whole;
}
