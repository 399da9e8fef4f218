/**
 * The legend of a color scale: what is drawn, its unit, the smallest and the largest number.
 *
 * @typedef {object} Legend
 * @property {string} name  what the color shows, such as "router margin"
 * @property {string} unit  such as "nats"; "" for none
 * @property {import("./scale.js").Scale} scale
 */

import { make } from "./elements.js";
import { short } from "./numbers.js";
import { toCss } from "./scale.js";

const STEPS = 20;
const BAR = { width: 140, height: 12 };

/** @param {Legend} legend @returns {HTMLElement} */
export function makeLegend(legend) {
  const [low, high] = endTexts(legend.scale);
  const colors = listColors(legend.scale).map(toCss);
  const background = `linear-gradient(to right, ${colors.join(", ")})`;
  const bar = make("span", { class: "oss-legend-bar", style: `background: ${background}` });
  const ends = make("span", { class: "oss-legend-scale" }, low, bar, high);
  return make("div", { class: "oss-legend" }, make("span", {}, titleOf(legend)), ends);
}

/** The same in a picture; `y` is the middle of the line. */
export function paintLegend(pen, legend, x, y, colors) {
  const lettering = { fill: colors.ink, size: 12 };
  const [low, high] = endTexts(legend.scale);
  const text = `${titleOf(legend)}  ${low}`;
  const left = x + 6.4 * text.length + 8; // about the width of the text
  pen.text(x, y, text, lettering);
  const step = BAR.width / STEPS;
  listColors(legend.scale).forEach((color, n) => {
    pen.rect(left + n * step, y - BAR.height / 2, step + 0.5, BAR.height, { fill: toCss(color) });
  });
  pen.text(left + BAR.width + 8, y, high, lettering);
}

function titleOf({ name, unit }) {
  return unit ? `${name} (${unit}):` : `${name}:`;
}

/** The largest number has a sign if larger ones share its color. */
function endTexts({ min, max, isClipped }) {
  const low = isClipped && min < 0 ? `≤ ${short(min)}` : short(min);
  return [low, isClipped ? `≥ ${short(max)}` : short(max)];
}

function listColors({ min, max, color }) {
  return Array.from({ length: STEPS }, (_, n) => color(min + ((max - min) * (n + 0.5)) / STEPS));
}
