"""All experts of a few tokens in one compiled call on the CPU.

For one token nearly all the time goes into reading the packed weights of its experts, each once.
Pairs of a token and an expert are sorted by expert, so tokens with the same expert share the
decoding of its rows. The work is divided among threads in three steps:

    pairs      (expert 3, token 0) (expert 3, token 1) (expert 7, token 0) ...
    step 1     by gate_up rows of all experts in use; a gate row and its up row also do the SwiGLU
    step 2     by down rows of all experts in use
    step 3     by columns of the output: the weighted sum over a token's slots, in slot order
"""

from functools import cache

import numpy as np
from numba import njit, prange

from oss_kernels.cpu import machine
from oss_kernels.cpu.arrange import arrange
from oss_kernels.cpu.e2m1_layouts import LAYOUTS
from oss_kernels.cpu.e2m1_tile import ROWS, tile_product
from oss_kernels.cpu.numbers import load_float32, store_rounded
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.swiglu import swiglu


@cache
def few_tokens_kernel(path: machine.InstructionSet):
    """The compiled kernel of one path. bfloat16 is uint16, also in the scratch arrays."""
    order, sources = np.array(LAYOUTS[path].order), fingerprint()

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def kernel(
        x,
        tokens,  # [pair]
        used,  # the experts in use
        starts,  # the first pair of each, then the number of pairs
        where,  # [token slot]: the index of its pair
        weights,  # [token slot]
        gate_up_blocks,  # [expert 2·width groups 16]
        gate_up_scales,
        gate_up_bias,  # [expert 2·width]
        down_blocks,  # [expert hidden groups 16]
        down_scales,
        down_bias,  # [expert hidden]
        alpha,
        limit,
        arranged,  # overwritten: [token chunk elements]
        activation,  # overwritten: [pair width]
        activation_arranged,  # overwritten: [pair chunk elements]
        out,  # [token hidden]
    ):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
        hidden, pairs, rows = x.shape[1], tokens.size, gate_up_bias.shape[1]

        addresses = arrange(x, order, arranged)[tokens]
        groups, tiles = gate_up_scales.shape[2], -(-rows // ROWS)
        blocks_at, scales_at = gate_up_blocks.ctypes.data, gate_up_scales.ctypes.data
        for index in prange(used.size * tiles):  # one tile of rows of one expert in use
            expert, first = used[index // tiles], index % tiles * ROWS
            begin, end = starts[index // tiles], starts[index // tiles + 1]
            count = min(ROWS, rows - first)
            products = np.empty((end - begin, ROWS), np.float32)
            row = expert * rows + first
            tile_product(
                path, addresses[begin:end], blocks_at, scales_at, groups, row, count, products
            )
            for pair in range(begin, end):
                for i in range(0, count, 2):
                    gate = products[pair - begin, i]
                    gate += load_float32(gate_up_bias, (expert, first + i))
                    up = products[pair - begin, i + 1]
                    up += load_float32(gate_up_bias, (expert, first + i + 1))
                    value = swiglu(gate, up, alpha, limit)
                    store_rounded(activation, (pair, (first + i) // 2), value)

        addresses = arrange(activation, order, activation_arranged)
        groups, tiles = down_scales.shape[2], -(-hidden // ROWS)
        blocks_at, scales_at = down_blocks.ctypes.data, down_scales.ctypes.data
        each = np.empty((pairs, hidden), np.float32)
        for index in prange(used.size * tiles):
            expert, first = used[index // tiles], index % tiles * ROWS
            begin, end = starts[index // tiles], starts[index // tiles + 1]
            count = min(ROWS, hidden - first)
            row = expert * hidden + first
            products = np.empty((end - begin, ROWS), np.float32)
            tile_product(
                path, addresses[begin:end], blocks_at, scales_at, groups, row, count, products
            )
            for pair in range(begin, end):
                for i in range(count):
                    bias = load_float32(down_bias, (expert, first + i))
                    each[pair, first + i] = products[pair - begin, i] + bias

        for i in prange(hidden):
            for token in range(len(x)):
                total = np.float32(0)
                for slot in range(where.shape[1]):
                    total += weights[token, slot] * each[where[token, slot], i]
                store_rounded(out, (token, i), total)

    return kernel
