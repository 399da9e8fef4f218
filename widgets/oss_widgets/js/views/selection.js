/**
 * The selection that links views: one token, layer, head and expert, and pinned ones.
 *
 * Each part is a number or null. Views that share a selection highlight the same place. In a
 * notebook it is the trait `selection`; on the page it is part of the permalink.
 *
 * @typedef {{token: number | null, layer: number | null, head: number | null,
 *   expert: number | null}} Place
 */

import { Listeners } from "../source/source.js";

/** The parts of a place. */
export const PARTS = ["token", "layer", "head", "expert"];

/** @param {Place} one @param {Place} other */
export function isSamePlace(one, other) {
  return PARTS.every((part) => one[part] === other[part]);
}

export class Selection {
  constructor() {
    this.place = Object.fromEntries(PARTS.map((part) => [part, null]));
    /** @type {Place[]} */
    this.pinned = [];
    this.listeners = new Listeners();
  }

  get token() {
    return this.place.token;
  }

  get layer() {
    return this.place.layer;
  }

  get head() {
    return this.place.head;
  }

  get expert() {
    return this.place.expert;
  }

  /** Change some parts; the others stay. @param {Partial<Place>} parts */
  set(parts) {
    const changed = PARTS.filter((part) => part in parts && parts[part] !== this.place[part]);
    for (const part of changed) this.place[part] = parts[part];
    if (changed.length) this.listeners.notify("change", changed);
  }

  /** Keep the current place in `pinned`, or drop it from there. */
  togglePin() {
    const others = this.pinned.filter((place) => !isSamePlace(place, this.place));
    this.pinned = others.length < this.pinned.length ? others : [...others, { ...this.place }];
    this.listeners.notify("change", ["pinned"]);
  }

  /** Drop the pin with this number. */
  unpin(number) {
    this.pinned = this.pinned.filter((_, n) => n !== number);
    this.listeners.notify("change", ["pinned"]);
  }

  /** @param {(changed: string[]) => void} call @returns {() => void} stops it */
  on(call) {
    return this.listeners.on("change", call);
  }

  /** Plain data, as the trait and the permalink keep it. */
  toJSON() {
    return { ...this.place, pinned: this.pinned.map((place) => ({ ...place })) };
  }

  /** Take over plain data; anything that is not a number becomes null. */
  read(data) {
    const clean = (place) =>
      Object.fromEntries(
        PARTS.map((part) => [part, Number.isInteger(place?.[part]) ? place[part] : null]),
      );
    this.pinned = Array.isArray(data?.pinned) ? data.pinned.map(clean) : [];
    this.place = clean(data);
    this.listeners.notify("change", [...PARTS, "pinned"]);
  }
}
