"""The experts of many tokens on a CPU with AMX.

An expert's tokens are put into tiles of 16. A panel of 32 weight rows is decoded, a few groups at a
time, and multiplied by all of the expert's tiles while it is in the L1 cache. Sums have a row for
each weight row and a column for each token:

    step 1    x of each tile, in the order of `amx`
    step 2    gate_up: rows 4i to 4i + 3 become two numbers of each token's activation, which are
              neighbors in the order of `amx` too
    step 3    down: each token's column is weighted and added to its row of the result

A thread has the same panels of every expert. So tokens are read from the caches, threads have equal
work whatever the router chose, and an element of the result is summed by one thread in the order of
the experts.
"""

from functools import cache

import numpy as np
from numba import njit, prange

from oss_kernels.cpu import amx
from oss_kernels.cpu.e2m1_panels import (
    STEP,
    are_all_ordinary,
    decode_any,
    decode_ordinary,
    prefetch_bytes,
)
from oss_kernels.cpu.numbers import load_float32
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.swiglu import swiglu_pair

GROUPS = 10  # decoded at a time: 20 KB
TILES = 8  # of tokens at a time: their sums are 16 KB


@njit(nogil=True)
def multiply_panel(blocks, scales, expert, row, x, panel, sums):
    """sums [tile / 2, 32 rows, 32 tokens] = 32 rows of an expert times x, at most TILES tiles."""
    rows, groups = scales.shape[1:]
    at = expert * rows + row
    size = 16 * groups * amx.ROWS  # bytes of a panel
    blocks_at = blocks.ctypes.data + 16 * groups * at
    scales_at = scales.ctypes.data + groups * at
    panel_at, stride = panel.ctypes.data, groups * amx.TILE
    is_ordinary = are_all_ordinary(scales_at, amx.ROWS * groups)
    for first in range(0, groups, GROUPS):
        count = min(GROUPS, groups - first)
        if is_ordinary:
            decode_ordinary(blocks_at, scales_at, groups, first, count, panel_at)
        else:
            decode_any(blocks_at, scales_at, groups, first, count, panel_at)
        # The next panel comes from memory while this one is multiplied.
        prefetch_bytes(blocks_at + size + size * first // groups, size * count // groups)
        for tile in range(0, len(x), 2):
            x_at = x.ctypes.data + tile * stride + first * amx.TILE
            sums_at = sums.ctypes.data + tile // 2 * 4 * amx.ROWS * amx.TOKENS
            if tile + 1 < len(x):
                amx.multiply_block(2, first == 0, panel_at, 64, STEP, x_at, stride, count, sums_at)
            else:
                amx.multiply_block(1, first == 0, panel_at, 64, STEP, x_at, stride, count, sums_at)


@njit(nogil=True)
def activate(sums, bias, expert, row, alpha, limit, activation):
    """SwiGLU of a panel's sums, to activation [tile width/2 16]."""
    line = 4 * amx.TOKENS  # bytes of a row of sums
    for i in range(0, amx.ROWS, 4):
        biases = (
            load_float32(bias, (expert, row + i)),
            load_float32(bias, (expert, row + i + 1)),
            load_float32(bias, (expert, row + i + 2)),
            load_float32(bias, (expert, row + i + 3)),
        )
        for tile in range(len(activation)):
            at = sums.ctypes.data + (tile // 2 * amx.ROWS + i) * line + tile % 2 * 4 * amx.SIDE
            out = activation[tile, (row + i) // 4].ctypes.data
            swiglu_pair(at, line, biases, alpha, limit, out)


@njit(nogil=True)
def add_weighted(sums, bias, expert, row, tokens, weights, out):
    """Add weight * (sum + bias) to the rows of out that tokens [tile 16] name."""
    for tile in range(len(tokens)):
        for place in range(amx.SIDE):
            token, weight = tokens[tile, place], weights[tile, place]
            if token >= 0:
                column = tile % 2 * amx.SIDE + place
                for i in range(amx.ROWS):
                    value = sums[tile // 2, i, column] + load_float32(bias, (expert, row + i))
                    out[token, row + i] += weight * value


@cache
def many_tokens_kernel():
    """The compiled kernel. bfloat16 is uint16; in the scratch arrays a uint32 has two of them."""
    sources = fingerprint()

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def kernel(
        x,  # [token hidden]
        used,  # the experts in use
        starts,  # the first tile of each, then the number of tiles
        tokens,  # [tile 16], -1 where a tile is not full
        weights,  # [tile 16]
        gate_up_blocks,  # [expert 2·width groups 16]
        gate_up_scales,
        gate_up_bias,  # [expert 2·width]
        down_blocks,  # [expert hidden groups 16]
        down_scales,
        down_bias,  # [expert hidden]
        alpha,
        limit,
        arranged,  # overwritten: [tile hidden/2 16]
        activation,  # overwritten: [tile width/2 16]
        decoded,  # overwritten: [thread, bytes]
        sums,  # overwritten: [thread TILES/2 32 32]
        out,  # [token hidden], added to
    ):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
        threads = len(decoded)
        for tile in prange(len(tokens)):
            for lane in range(amx.SIDE):
                token = tokens[tile, lane]
                for i in range(x.shape[1] // 2):
                    word = np.uint32(0)
                    if token >= 0:
                        word = np.uint32(x[token, 2 * i])
                        word |= np.uint32(x[token, 2 * i + 1]) << np.uint32(16)
                    arranged[tile, i, lane] = word

        panels = gate_up_bias.shape[1] // amx.ROWS
        for thread in prange(threads):
            amx.open_tiles()
            begin, end = panels * thread // threads, panels * (thread + 1) // threads
            for n in range(used.size):
                for row in range(begin * amx.ROWS, end * amx.ROWS, amx.ROWS):
                    for tile in range(starts[n], starts[n + 1], TILES):
                        some = slice(tile, min(tile + TILES, starts[n + 1]))
                        multiply_panel(
                            gate_up_blocks, gate_up_scales, used[n], row,
                            arranged[some], decoded[thread], sums[thread],
                        )  # fmt: skip
                        activate(
                            sums[thread], gate_up_bias, used[n], row,
                            alpha, limit, activation[some],
                        )  # fmt: skip
            amx.close_tiles()

        panels = down_bias.shape[1] // amx.ROWS
        for thread in prange(threads):
            amx.open_tiles()
            begin, end = panels * thread // threads, panels * (thread + 1) // threads
            for n in range(used.size):
                for row in range(begin * amx.ROWS, end * amx.ROWS, amx.ROWS):
                    for tile in range(starts[n], starts[n + 1], TILES):
                        some = slice(tile, min(tile + TILES, starts[n + 1]))
                        multiply_panel(
                            down_blocks, down_scales, used[n], row,
                            activation[some], decoded[thread], sums[thread],
                        )  # fmt: skip
                        add_weighted(
                            sums[thread], down_bias, used[n], row,
                            tokens[some], weights[some], out,
                        )  # fmt: skip
            amx.close_tiles()

    return kernel
