/** The colors of a scale from its lowest to its highest number. */

import { make } from "./elements.js";
import { toCss } from "./scale.js";

const STEPS = 12;

/**
 * @param {string} label  what the colors show, with its unit
 * @param {string} low
 * @param {string} high
 * @param {(share: number) => [number, number, number]} color  of a share from 0 to 1
 */
export function makeColorLegend(label, low, high, color) {
  const shares = Array.from({ length: STEPS }, (_, n) => n / (STEPS - 1));
  const ramp = make("span", { class: "oss-ramp", "aria-hidden": "true" });
  ramp.style.background = `linear-gradient(90deg, ${shares.map((share) => toCss(color(share))).join(", ")})`;
  return make("span", { class: "oss-color-legend" }, `${label}: ${low}`, ramp, high);
}
