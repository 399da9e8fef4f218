/**
 * MXFP4: how gpt-oss stores its experts, 4.25 bits per weight.
 *
 * A weight is a 4-bit E2M1 float (sign, two exponent bits, one mantissa bit). 32 neighbors of a row
 * share one byte u, the scale 2^(u - 127). Two weights share a byte, the even one in the low half.
 * Source: OCP Microscaling Formats (MX) v1.0, sections 5.2 and 5.4.
 */

const E2M1_VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];
const SCALE_BIAS = 127;
const NAN_SCALE = 255; // the only scale byte that is not a power of two
const BLOCK_BYTES = 16; // 32 weights

/**
 * The stored numbers of one matrix, row by row. A scale byte of 255 makes its block NaN.
 * @param {Uint8Array} blocks  [group, 16], two weights a byte
 * @param {Uint8Array} scales  [group]
 * @returns {Float32Array}  [group * 32]
 */
export function dequantize(blocks, scales) {
  const values = new Float32Array(2 * blocks.length);
  for (let group = 0; group < scales.length; group++) {
    const scale = scales[group] === NAN_SCALE ? NaN : 2 ** (scales[group] - SCALE_BIAS);
    for (let at = group * BLOCK_BYTES; at < (group + 1) * BLOCK_BYTES; at++) {
      values[2 * at] = E2M1_VALUES[blocks[at] & 15] * scale;
      values[2 * at + 1] = E2M1_VALUES[blocks[at] >> 4] * scale;
    }
  }
  return values;
}
