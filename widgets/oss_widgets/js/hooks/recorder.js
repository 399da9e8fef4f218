/**
 * Records points of a forward pass. A view gets them as flat arrays with their shape, row by row,
 * with the tokens first.
 *
 * @typedef {{shape: number[], data: Float32Array | Int32Array}} Recording
 */

import { LabError } from "../errors.js";
import { DERIVED } from "./derived.js";
import { findPoint, HIDDEN_KEY_VALUES, sizeOf } from "./points.js";

/** Copies the values of some points. Pass `recorder.hooks` to the model. */
export class Recorder {
  /**
   * @param {import("../model/transformer.js").Transformer} model
   * @param {string[]} names  points of `points.js`
   * @param {number[] | null} layers  null for all
   */
  constructor(model, names, layers = null) {
    this.model = model;
    this.layers = layers;
    this.wanted = new Set(names.flatMap((name) => listSources(name)));
    /** What was seen at "point layer", oldest first. @type {Map<string, {x, here}[]>} */
    this.seen = new Map();
    /** @type {import("../model/hook.js").Hooks} */
    this.hooks = (point, layer, x, here) => {
      if (!this.wanted.has(point)) return;
      if (layer !== null && this.layers && !this.layers.includes(layer)) return;
      const key = `${point} ${layer}`;
      if (!this.seen.has(key)) this.seen.set(key, []);
      this.seen.get(key).push({ x: x.slice(), here }); // a copy: the model uses the array again
    };
  }

  /**
   * The values of a point for all tokens that were read.
   * @param {string} name
   * @param {number | null} layer  null outside the layers
   * @returns {Recording}
   */
  get(name, layer = null) {
    const { axes, sources } = findPoint(name);
    if (sources.length) {
      const recorded = sources.map((source) => this.get(source, layer));
      const data = DERIVED[name](this.model, layer, ...recorded);
      return { shape: this.shapeOf(axes, this.seen.get(`${sources[0]} ${layer}`)), data };
    }
    const rows = this.seen.get(`${name} ${layer}`);
    if (!rows) throw new LabError(`${name} was not recorded in layer ${layer}`);
    const shape = this.shapeOf(axes, rows);
    const Numbers = rows[0].x.constructor;
    const data = new Numbers(shape.reduce((product, n) => product * n, 1));
    if (!axes.includes("seq")) data.set(rows[rows.length - 1].x);
    else if (axes.includes("key")) fillKeys(data.fill(HIDDEN_KEY_VALUES[name]), rows, shape);
    else rows.forEach(({ x }, row) => data.set(x, row * x.length));
    return { shape, data };
  }

  /** Forget the tokens from this position on. */
  truncate(length) {
    for (const [key, rows] of this.seen) {
      this.seen.set(key, rows.filter(({ here }) => here.position < length));
    }
  }

  /** A recorder that continues from here: it has the rows of the tokens before `length`. */
  fork(length) {
    const child = new Recorder(this.model, [...this.wanted], this.layers);
    child.seen = new Map(this.seen);
    child.truncate(length);
    return child;
  }

  /** The keys are those of all positions, also if the recording starts after the first token. */
  shapeOf(axes, rows) {
    const sizes = { seq: rows.length, key: rows[rows.length - 1].here.position + 1 };
    return axes.map((axis) => sizes[axis] ?? sizeOf(axis, this.model.config));
  }
}

function listSources(name) {
  const { sources } = findPoint(name);
  return sources.length ? sources : [name];
}

/** Rows [head key], which have only the keys that the layer sees, become rows with all keys. */
function fillKeys(data, rows, [, heads, keys]) {
  rows.forEach(({ x, here }, row) => {
    const count = x.length / heads;
    for (let head = 0; head < heads; head++) {
      const begin = (row * heads + head) * keys + here.firstKey;
      data.set(x.subarray(head * count, (head + 1) * count), begin);
    }
  });
}
