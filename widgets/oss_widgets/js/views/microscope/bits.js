/**
 * The bits of an MXFP4 block: what each one means, and what value they make together.
 */

/** Weights of a block. */
export const WEIGHTS = 32;

/** The eight magnitudes of a 4-bit E2M1 float, by its lower three bits. */
const MAGNITUDES = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const SCALE_BIAS = 127;

export const WEIGHT_BITS = ["mantissa", "exponent, low", "exponent, high", "sign"];

/** The four bits of one weight, 0 to 15. */
export function nibbleOf(packed, weight) {
  const byte = packed[weight >> 1];
  return weight % 2 ? byte >> 4 : byte & 15;
}

/** The value of a nibble before the scale. */
export function nibbleValue(nibble) {
  return (nibble & 8 ? -1 : 1) * MAGNITUDES[nibble & 7];
}

/** The scale: a power of two; the byte 255 means "not a number". */
export function scaleValue(byte) {
  return byte === 255 ? NaN : 2 ** (byte - SCALE_BIAS);
}

/**
 * Between which bounds a weight rounded to this nibble may have been, before the scale. Beyond the
 * largest magnitude weights are clipped, so the outer bound is infinite.
 * @returns {[number, number]}
 */
export function roundingBounds(nibble) {
  const n = nibble & 7;
  const low = n === 0 ? -MAGNITUDES[1] / 2 : (MAGNITUDES[n - 1] + MAGNITUDES[n]) / 2;
  const high = n === 7 ? Infinity : (MAGNITUDES[n] + MAGNITUDES[n + 1]) / 2;
  return nibble & 8 ? [-high, -low] : [low, high];
}
