/**
 * Where an expert's weight matrices come from: four bits per weight, as the checkpoint stores them.
 *
 * A matrix is dequantized when a token first chooses its expert, and then kept. All of nano's
 * experts take 1.9 MB packed and 14 MB as float32.
 */

import { dequantize } from "../checkpoint/mxfp4.js";

/** One MXFP4 matrix for each expert of a layer. */
export class PackedExperts {
  /**
   * @param {Uint8Array} blocks  [expert rows groups 16]
   * @param {Uint8Array} scales  [expert rows groups]
   * @param {number} experts
   */
  constructor(blocks, scales, experts) {
    this.blocks = blocks;
    this.scales = scales;
    /** @type {(Float32Array | undefined)[]} */
    this.matrices = new Array(experts);
  }

  /**
   * The matrix of one expert.
   * @param {number} expert
   * @returns {Float32Array}  [rows columns]
   */
  matrix(expert) {
    const part = (bytes) => {
      const size = bytes.length / this.matrices.length;
      return bytes.subarray(expert * size, (expert + 1) * size);
    };
    return (this.matrices[expert] ??= dequantize(part(this.blocks), part(this.scales)));
  }
}
