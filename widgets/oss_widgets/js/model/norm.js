/**
 * RMSNorm: scale a vector to root mean square one, then multiply by learned numbers.
 *
 * Each layer normalizes a copy of the residual stream before attention and before the experts. So
 * the magnitude of their input does not depend on how large the stream has become.
 */

/**
 * out = x / sqrt(mean(x²) + eps) * scale. `eps` keeps the result finite: zeros stay zeros.
 * @param {Float32Array} out  [hidden]
 * @param {Float32Array} x  [hidden]
 * @param {Float32Array} scale  [hidden]
 * @param {number} eps
 * @returns {Float32Array}  `out`
 */
export function rmsNorm(out, x, scale, eps) {
  let squares = 0;
  for (let n = 0; n < x.length; n++) squares += x[n] * x[n];
  const factor = 1 / Math.sqrt(squares / x.length + eps);
  for (let n = 0; n < x.length; n++) out[n] = x[n] * factor * scale[n];
  return out;
}
