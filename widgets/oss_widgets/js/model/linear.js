/**
 * A matrix times a vector: nearly all of a forward pass.
 *
 * Four rows are computed together, so each number of the vector is read once for four products.
 * Sums are in double precision, as JavaScript adds; each result is rounded to float32 once.
 */

/**
 * out = weight x + bias, written into `out`.
 * @param {Float32Array} out  [rows]
 * @param {Float32Array} weight  [rows columns], row by row
 * @param {Float32Array} x  [columns]
 * @param {Float32Array | null} bias  [rows]
 * @returns {Float32Array}  `out`
 */
export function linear(out, weight, x, bias = null) {
  const rows = out.length;
  const columns = x.length;
  let row = 0;
  for (; row + 3 < rows; row += 4) {
    const first = row * columns;
    const second = first + columns;
    const third = second + columns;
    const fourth = third + columns;
    let a = 0;
    let b = 0;
    let c = 0;
    let d = 0;
    for (let column = 0; column < columns; column++) {
      const value = x[column];
      a += weight[first + column] * value;
      b += weight[second + column] * value;
      c += weight[third + column] * value;
      d += weight[fourth + column] * value;
    }
    out[row] = bias ? a + bias[row] : a;
    out[row + 1] = bias ? b + bias[row + 1] : b;
    out[row + 2] = bias ? c + bias[row + 2] : c;
    out[row + 3] = bias ? d + bias[row + 3] : d;
  }
  for (; row < rows; row++) {
    let sum = bias ? bias[row] : 0;
    for (let column = 0; column < columns; column++) {
      sum += weight[row * columns + column] * x[column];
    }
    out[row] = sum;
  }
  return out;
}
