/**
 * One MXFP4 block of an expert's matrix: 32 weights that share a scale, as they are stored.
 */

import { dequantize } from "../checkpoint/mxfp4.js";
import { LabError } from "../errors.js";

const BLOCK_BYTES = 16;

/**
 * @param {import("../model/transformer.js").Transformer} model
 * @param {import("../source/source.js").Place} place
 * @returns {import("../source/source.js").Block}  a copy
 */
export function readBlock(model, place) {
  const { experts, group } = findGroup(model, place);
  const packed = experts.blocks.slice(group * BLOCK_BYTES, (group + 1) * BLOCK_BYTES);
  return makeBlock(packed, experts.scales[group]);
}

/** @returns {import("../source/source.js").Block} */
export function makeBlock(packed, scale) {
  return { packed, scale, values: dequantize(packed, Uint8Array.of(scale)) };
}

/** Where a block is stored: the matrices of a layer, the number of the block in them and in its matrix. */
export function findGroup(model, { layer, expert, matrix, row, block }) {
  const { num_experts: count, hidden_size: hidden, intermediate_size: width } = model.config;
  check("layer", layer, model.blocks.length);
  check("expert", expert, count);
  const layout = {
    gate_up: { name: "mlp1Weight", rows: 2 * width, blocks: hidden / 32 },
    down: { name: "mlp2Weight", rows: hidden, blocks: width / 32 },
  };
  if (!Object.hasOwn(layout, matrix)) {
    throw new LabError(`matrix is ${matrix}; an expert has the matrices gate_up and down`);
  }
  const { name, rows, blocks } = layout[matrix];
  check("row", row, rows);
  check("block", block, blocks);
  const inMatrix = row * blocks + block;
  return { experts: model.blocks[layer].experts[name], group: expert * rows * blocks + inMatrix, inMatrix };
}

function check(name, n, count) {
  if (!(Number.isInteger(n) && 0 <= n && n < count)) {
    throw new LabError(`${name} is ${n}; it must be 0 to ${count - 1}`);
  }
}
