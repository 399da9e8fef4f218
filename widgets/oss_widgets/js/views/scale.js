/**
 * Colors of numbers, safe for color-blind readers, and the ink that is readable on them.
 *
 * Color is never the only sign: maps also show numbers, outlines or a described cell.
 */

// Cividis (Nuñez, Anderton and Renslow, 2018), at ten equal steps.
const CIVIDIS = [
  [0, 32, 81], [10, 50, 103], [53, 71, 107], [84, 92, 110], [111, 113, 117],
  [137, 134, 121], [166, 156, 117], [197, 180, 106], [228, 206, 86], [253, 234, 69],
]; // prettier-ignore

// Blue for negative, near white for zero, orange for positive.
const SIGNED = [[1, 89, 157], [107, 169, 214], [246, 246, 246], [240, 155, 77], [176, 72, 0]];

/** @param {number} share  0 to 1 @returns {[number, number, number]} */
export function sequentialColor(share) {
  return mix(CIVIDIS, share);
}

/** @param {number} share  -1 to 1 @returns {[number, number, number]} */
export function signedColor(share) {
  return mix(SIGNED, (share + 1) / 2);
}

/**
 * Which color a number has, from the smallest to the largest one.
 * @typedef {object} Scale
 * @property {number} min
 * @property {number} max
 * @property {boolean} isClipped  whether some numbers are beyond and share the last color
 * @property {(value: number) => [number, number, number]} color
 */

/** A scale between two numbers; one that reaches below 0 is symmetric. @returns {Scale} */
export function makeScale(min, max, isClipped = false) {
  if (min < 0) {
    const reach = Math.max(-min, max);
    return { min: -reach, max: reach, isClipped, color: (value) => signedColor(value / reach) };
  }
  const span = max - min || 1;
  return { min, max, isClipped, color: (value) => sequentialColor((value - min) / span) };
}

/**
 * A scale that fits the numbers. The largest 2 % share a color if they are far from the others, so
 * that one outlier does not make all others look equal.
 * @param {Float32Array | number[]} values
 */
export function fitScale(values) {
  const sorted = Float32Array.from(values).filter(Number.isFinite).sort();
  if (!sorted.length) return makeScale(0, 1);
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [min, max, low, high] = [at(0), at(1), at(0.02), at(0.98)];
  const isClipped = max - min > 2 * (high - low) && high > low;
  return isClipped ? makeScale(min < 0 ? Math.min(low, -high) : min, high, true) : makeScale(min, max);
}

function mix(colors, share) {
  const place = Math.min(Math.max(share, 0), 1) * (colors.length - 1);
  const low = Math.min(Math.floor(place), colors.length - 2);
  return colors[low].map((value, n) => {
    return Math.round(value + (place - low) * (colors[low + 1][n] - value));
  });
}

export function toCss([red, green, blue]) {
  return `rgb(${red}, ${green}, ${blue})`;
}

const INKS = new Map(); // by color; a map asks for thousands in each frame

/** Black or white, whichever has more contrast: at least 4.58 to 1 on any color. */
export function inkOn(color) {
  const key = (color[0] << 16) | (color[1] << 8) | color[2];
  if (!INKS.has(key)) INKS.set(key, luminance(color) > 0.179 ? "#000000" : "#ffffff");
  return INKS.get(key);
}

/** Relative luminance as WCAG defines it, 0 to 1. */
function luminance(color) {
  const [red, green, blue] = color.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
