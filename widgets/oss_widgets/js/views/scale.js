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

/** Black or white, whichever has more contrast: at least 4.58 to 1 on any color. */
export function inkOn(color) {
  return luminance(color) > 0.179 ? "#000000" : "#ffffff";
}

/** Relative luminance as WCAG defines it, 0 to 1. */
export function luminance(color) {
  const [red, green, blue] = color.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
