/**
 * The router's recorded numbers of one run, by layer. Each is requested from the source once.
 */

import { LabError } from "../../errors.js";

export const IDS = "moe.expert_ids";
export const WEIGHTS = "moe.expert_weights";
export const MARGIN = "moe.margin";
export const ENTROPY = "moe.entropy";

export class Recordings {
  /** @param {import("../../source/source.js").Source} source */
  constructor(source, run) {
    this.source = source;
    this.run = run;
    const count = source.config.num_hidden_layers ?? 0; // unknown without a model
    const all = Array.from({ length: count }, (_, layer) => layer);
    /** The layers whose choices are known. */
    this.layers = all.filter((layer) => source.hasPoint(IDS, layer, run));
    /** Numbers that have arrived, [layer] by name. @type {Record<string, object>} */
    this.known = {};
    this.requests = new Map();
    this.slots = source.config.experts_per_token;
    this.seq = 0;
  }

  has(name) {
    const isThere = (layer) => this.source.hasPoint(name, layer, this.run);
    return this.layers.length > 0 && this.layers.every(isThere);
  }

  /** Requests points of every layer that the source has; they are in `known` afterwards. */
  async load(...names) {
    const wanted = names.filter((name) => this.has(name));
    await Promise.all(wanted.flatMap((name) => this.layers.map((layer) => this.request(name, layer))));
    return this;
  }

  request(name, layer) {
    const key = `${name} ${layer}`;
    if (!this.requests.has(key)) this.requests.set(key, this.fetchPoint(name, layer));
    return this.requests.get(key);
  }

  async fetchPoint(name, layer) {
    const { shape, data } = await this.source.points(this.run, name, layer);
    if (name === IDS) [this.seq, this.slots] = shape;
    this.known[name] ??= {};
    this.known[name][layer] = data;
  }

  /** A number array of a layer, or null before it has arrived or if it was not recorded. */
  get(name, layer) {
    return this.known[name]?.[layer] ?? null;
  }

  /** Whether the choices of a token are recorded; a trace may keep only some tokens. */
  hasToken(position) {
    const ids = this.get(IDS, this.layers[0]);
    return ids !== null && ids[position * this.slots] >= 0;
  }

  /** The chosen experts of one token with their weights, in the order of their slots. */
  chosen(layer, position) {
    const ids = this.get(IDS, layer);
    if (!ids || !this.hasToken(position)) return [];
    const weights = this.get(WEIGHTS, layer);
    return Array.from({ length: this.slots }, (_, slot) => {
      const at = position * this.slots + slot;
      return { slot, expert: ids[at], weight: weights ? weights[at] : null };
    });
  }
}

/** Numbers of the caller: `[layer, seq, slot]` or `[layer, seq]`, checked against the run. */
export function readArray({ values, shape, name = "value", unit = "", axes = "layer seq slot" }, run) {
  if (axes !== "layer seq slot") {
    throw new LabError(`${name} has the axes [${axes.replaceAll(" ", ", ")}]; expected [layer, seq, slot]`);
  }
  const product = shape.reduce((total, n) => total * n, 1);
  if (![2, 3].includes(shape.length) || product !== values.length) {
    const got = `[${shape.join(", ")}] with ${values.length} numbers`;
    throw new LabError(`expected an array [layer, seq] or [layer, seq, slot], got ${got}`);
  }
  const [layers, seq, slots = 1] = shape;
  if (run && seq !== run.tokens.length) {
    throw new LabError(`${name} has ${seq} positions, but the run has ${run.tokens.length} tokens`);
  }
  return { values, layers, seq, slots, name, unit };
}
