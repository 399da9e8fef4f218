/**
 * Checks of interventions: an unknown kind, a missing field, a number that the model does not have.
 */

import { LabError } from "../errors.js";
import { KINDS, listNumbers } from "./intervention_kinds.js";
import { findPoint, POINTS } from "./points.js";

/** Throws LabError that explains what is wrong with an intervention. */
export function checkIntervention(config, spec) {
  if (!Object.hasOwn(KINDS, spec.kind)) throw new LabError(`unknown intervention ${spec.kind}`);
  const { needs, optional = [], isForEveryToken } = KINDS[spec.kind];
  const place = isOutsideLayers(spec) ? [] : ["layer"];
  const known = [...place, ...needs, ...optional, ...(isForEveryToken ? [] : ["positions"])];
  const given = Object.keys(spec).filter((name) => spec[name] != null);
  for (const name of given) {
    if (name !== "kind" && !known.includes(name)) {
      throw new LabError(`${spec.kind} has no ${name}; it takes ${known.join(", ")}`);
    }
  }
  for (const name of [...place, ...needs]) {
    if (!given.includes(name)) throw new LabError(`${spec.kind} needs ${name}`);
  }
  for (const name of known.filter((each) => given.includes(each))) CHECKS[name](config, spec, name);
  if (spec.kind === "BanExpert") checkBanned(config, spec);
}

/** How each field is checked. */
const CHECKS = {
  layer: checkIndices,
  head: checkIndices,
  expert: checkIndices,
  slot: checkIndices,
  by: checkNumber,
  to: checkNumber,
  keys: checkKeys,
  first_query: checkPositions,
  positions: checkPositions,
  point: checkPoint,
  vector: checkVector,
};

function isOutsideLayers({ point }) {
  return Object.hasOwn(POINTS, point) && !POINTS[point].isPerLayer;
}

function checkBanned({ num_experts: experts, experts_per_token: needed }, { expert }) {
  const left = experts - new Set(listNumbers(expert, experts)).size;
  if (left < needed) {
    const what = `${left} experts, but every token needs ${needed}`;
    throw new LabError(`BanExpert leaves ${what}; ban fewer`);
  }
}

function checkNumber(config, spec, name) {
  const isRemoval = spec[name] === -Infinity && spec.kind.endsWith("Sink");
  if (!Number.isFinite(spec[name]) && !isRemoval) {
    throw new LabError(`${spec.kind}: ${name} is ${spec[name]}; it must be a finite number`);
  }
}

function checkIndices(config, spec, name) {
  const count = {
    layer: config.num_hidden_layers,
    head: config.num_attention_heads,
    expert: config.num_experts,
    slot: config.experts_per_token,
  }[name];
  const isSingle = name === "slot" || spec.kind === "ForceExpert";
  const numbers = isSingle && name !== "layer" ? [spec[name]] : listNumbers(spec[name], count);
  for (const n of numbers) {
    if (!(Number.isInteger(n) && 0 <= n && n < count)) {
      const there = `this model has ${name}s 0 to ${count - 1}`;
      throw new LabError(`${spec.kind}: ${name} ${n} is out of range; ${there}`);
    }
  }
}

function checkPositions(config, spec, name) {
  const wrong = listNumbers(spec[name]).find((n) => !(Number.isInteger(n) && n >= 0));
  const isEmpty = listNumbers(spec[name]).length === 0;
  if (wrong !== undefined || isEmpty) {
    const found = isEmpty ? "empty" : wrong;
    throw new LabError(`${spec.kind}: ${name} is ${found}; positions are integers of 0 or more`);
  }
}

/** Positions to hide, or the size of a window. */
function checkKeys(config, spec, name) {
  if (spec.kind === "HideKeys") checkPositions(config, spec, name);
  else if (!(Number.isInteger(spec.keys) && spec.keys >= 1)) {
    throw new LabError(`${spec.kind}: keys is ${spec.keys}; it must be an integer of 1 or more`);
  }
}

function checkPoint(config, { kind, point }) {
  const { axes, isReadOnly } = findPoint(point);
  if (String(axes) !== "seq,hidden") {
    throw new LabError(`${kind} needs a point with axes [seq hidden], but ${point} has [${axes.join(" ")}]`);
  }
  if (isReadOnly) throw new LabError(`${point} cannot be modified`);
}

function checkVector({ hidden_size: hidden }, { kind, vector }) {
  if (!Array.isArray(vector) && !ArrayBuffer.isView(vector)) {
    throw new LabError(`${kind}: the vector is not a list of numbers`);
  }
  if (vector?.length !== hidden) {
    throw new LabError(`${kind}: the vector has ${vector?.length} numbers; expected ${hidden}`);
  }
  if (![...vector].every(Number.isFinite)) {
    throw new LabError(`${kind}: the vector has a value that is not a finite number`);
  }
}
