/**
 * Reads a safetensors file: eight bytes of header length, a JSON header, then the tensors' bytes.
 *
 * A tensor may start at any byte, but a typed array of wider numbers must start at a multiple of
 * their size. So the bytes of such a tensor are copied before they are viewed as numbers.
 *
 * @typedef {{dtype: string, shape: number[], bytes: Uint8Array}} StoredTensor  row by row
 */

import { LabError } from "../errors.js";

const DTYPE_BYTES = { F64: 8, F32: 4, I32: 4, I64: 8, F16: 2, BF16: 2, U8: 1, I8: 1, BOOL: 1 };
const NUMBERS = {
  F64: Float64Array,
  F32: Float32Array,
  I32: Int32Array,
  I64: BigInt64Array,
  I8: Int8Array,
};

/**
 * Every tensor of a file, by name, and the file's metadata. No tensor is copied.
 * Throws LabError for a file that is truncated or whose header does not describe it.
 * @param {Uint8Array} file
 * @returns {{tensors: Map<string, StoredTensor>, metadata: Record<string, string>}}
 */
export function readSafetensors(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = file.length < 8 ? NaN : Number(view.getBigUint64(0, true));
  if (!(8 + length <= file.length)) throw new LabError("the file ends within its header");
  const text = new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, 8 + length));
  const { __metadata__: metadata = {}, ...entries } = JSON.parse(text);
  const tensors = new Map();
  let described = 0;
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(entries)) {
    const size = shape.reduce((product, n) => product * n, 1) * DTYPE_BYTES[dtype];
    if (size !== end - start) {
      const what = `${dtype} [${shape}]`;
      throw new LabError(`${name} has ${end - start} bytes, the wrong size for ${what}`);
    }
    if (8 + length + end > file.length) throw new LabError(`the file is cut off within ${name}`);
    tensors.set(name, { dtype, shape, bytes: file.subarray(8 + length + start, 8 + length + end) });
    described += size;
  }
  if (8 + length + described !== file.length) {
    throw new LabError("the header does not describe every byte of the file");
  }
  return { tensors, metadata };
}

/**
 * The numbers of a tensor, in the typed array that holds them exactly.
 * @param {StoredTensor} tensor
 * @returns {Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array | Int8Array}
 */
export function readNumbers({ dtype, bytes }) {
  if (dtype === "U8" || dtype === "BOOL") return bytes;
  const { buffer } = bytes.slice();
  if (dtype === "BF16") return widenBfloat16(new Uint16Array(buffer));
  if (dtype === "F16") return Float32Array.from(new Uint16Array(buffer), float16ToNumber);
  return new NUMBERS[dtype](buffer);
}

/**
 * bfloat16 is the upper half of a float32, so the lower half is zero.
 * @param {Uint16Array} halves
 * @returns {Float32Array}
 */
function widenBfloat16(halves) {
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}

/**
 * The value of a float16: one sign bit, five exponent bits, ten fraction bits.
 * @param {number} half  its 16 bits
 * @returns {number}
 */
function float16ToNumber(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
