/**
 * How attention knows positions: RoPE, with frequencies stretched by YaRN.
 *
 * RoPE rotates queries and keys by angles proportional to their positions, so the product of a
 * query and a key depends on their distance. A head has head_dim / 2 pairs of dimensions, and each
 * pair turns with its own frequency. Dimension i is paired with i + head_dim / 2.
 *
 * YaRN (arXiv 2309.00071, section 3) lets the model read texts that are longer than its training
 * texts by a scaling factor. Pairs that turn often keep their frequency, slow ones are slowed down
 * by the factor, and a ramp blends the two. It also multiplies cos and sin by a constant, the
 * concentration. All of this applies at every length.
 *
 * The model was trained with float32 angles, so `Math.fround` rounds to float32 at each step. At
 * position 1,000 an angle that is not rounded is already off by 0.00003.
 */

const { fround } = Math;

/**
 * Rotate the halves (a, b) of every head to (a cos - b sin, b cos + a sin), in place.
 * @param {Float32Array} x  [head head_dim]
 * @param {{cos: Float32Array, sin: Float32Array}} rotation  of `rotationAt`
 */
export function rotate(x, { cos, sin }) {
  const half = cos.length;
  for (let head = 0; head < x.length; head += 2 * half) {
    for (let pair = 0; pair < half; pair++) {
      const a = x[head + pair];
      const b = x[head + pair + half];
      x[head + pair] = a * cos[pair] - b * sin[pair];
      x[head + pair + half] = b * cos[pair] + a * sin[pair];
    }
  }
}

/**
 * cos and sin of the angles at one position, times the concentration.
 * @param {import("./config.js").ModelConfig} config
 * @param {Float32Array} frequencies  [half] of `yarnFrequencies`
 * @param {number} position
 * @returns {{cos: Float32Array, sin: Float32Array}}  [half] each
 */
export function rotationAt(config, frequencies, position) {
  const scale = concentration(config);
  const angles = frequencies.map((frequency) => position * frequency);
  return {
    cos: angles.map((angle) => fround(Math.cos(angle)) * scale),
    sin: angles.map((angle) => fround(Math.sin(angle)) * scale),
  };
}

/**
 * Radians per position for each pair. RoPE's frequency of pair i is theta^(-2i / head_dim).
 * @param {import("./config.js").ModelConfig} config
 * @returns {Float32Array}  [half]
 */
export function yarnFrequencies(config) {
  const half = config.head_dim / 2;
  const factor = config.rope_scaling_factor;
  const { low, high } = rampLimits(config);
  return Float32Array.from({ length: half }, (_, pair) => {
    const unscaled = fround(1 / fround(config.rope_theta ** (pair / half)));
    if (factor <= 1) return unscaled;
    const ramp = fround(Math.min(1, Math.max(0, (pair - low) / (high - low))));
    return fround(unscaled * fround(1 - ramp)) + fround(fround(unscaled / factor) * ramp);
  });
}

/**
 * The pairs between which YaRN blends. They may be fractions.
 * @param {import("./config.js").ModelConfig} config
 * @returns {{low: number, high: number}}
 */
function rampLimits(config) {
  /** The pair that turns this many times within the initial context. */
  const pairWith = (turns) => {
    const tokensPerRadian = config.initial_context_length / (turns * 2 * Math.PI);
    return ((config.head_dim / 2) * Math.log(tokensPerRadian)) / Math.log(config.rope_theta);
  };
  return {
    low: Math.max(pairWith(config.rope_ntk_beta), 0),
    high: Math.min(pairWith(config.rope_ntk_alpha), config.head_dim - 1),
  };
}

/** The factor on cos and sin: 0.1 ln(scaling factor) + 1, or 1 without scaling. */
export function concentration(config) {
  return 0.1 * Math.log(Math.max(config.rope_scaling_factor, 1)) + 1;
}
