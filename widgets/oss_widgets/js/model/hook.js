/**
 * Hooks: how to see or change what the forward pass computes, without editing the model.
 *
 * The forward pass contains lines such as `hook("attn.sink_mass", sinkMass)`. You pass a function
 * `(point, layer, x, here)` to the model. It may read the value `x`, or change its numbers in place
 * to change what follows. `hooks/points.js` lists all points.
 *
 * The model reads one token at a time, so `x` is the value of one token, without a seq axis. Its
 * array is used again for the next token: copy what you keep.
 *
 * @typedef {object} Here  where a value is
 * @property {number} position  of the token, from the start of the sequence
 * @property {number} token  its id
 * @property {number} firstKey  position of the first key in `attn.scores` and `attn.pattern`
 *
 * @typedef {Float32Array | Int32Array} Numbers  ids of experts are integers
 *
 * @typedef {(point: string, layer: number | null, x: Numbers, here: Here) => void} Hooks
 *   layer is null outside the layers
 *
 * @typedef {(point: string, x: Numbers) => void} LayerHook
 */

/** The default: does nothing. */
export function noHooks() {}

/**
 * The hook of one layer, with its layer and place filled in.
 * @param {Hooks} hooks
 * @param {number | null} layer
 * @param {Here} here
 * @returns {LayerHook}
 */
export function inLayer(hooks, layer, here) {
  return hooks === noHooks ? noHooks : (point, x) => hooks(point, layer, x, here);
}

/**
 * Hooks that run one after the other at every point.
 * @param {...Hooks} all
 * @returns {Hooks}
 */
export function chainHooks(...all) {
  return (point, layer, x, here) => {
    for (const hooks of all) hooks(point, layer, x, here);
  };
}
