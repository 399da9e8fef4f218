"""A token's experts on the CPU: one call while experts have few tokens each, else one by one.

For one token the work is to read the packed weights of its experts, each once. Pairs of a token and
an expert are sorted by expert, so that tokens that share one share the decoding of its rows:

    pairs      (expert 3, token 0) (expert 3, token 1) (expert 7, token 0) ...
    threads    share the rows of all experts in use: gate and up row of a number, SwiGLU at once
    threads    share the rows of all experts in use: down
    threads    share the numbers of the output: the sum over a token's slots, in their order
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit, prange
from torch import Tensor

from oss_kernels.cpu import machine
from oss_kernels.cpu.arrange import arrange, room
from oss_kernels.cpu.e2m1_layouts import LAYOUTS
from oss_kernels.cpu.e2m1_rows import GROUP_BYTES
from oss_kernels.cpu.e2m1_tile import ROWS, tile_product
from oss_kernels.cpu.numbers import array, number, put
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.experts import reference
from oss_kernels.experts.reference import clamped_swiglu
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.mxfp4_linear.cpu import FEW, mxfp4_linear


@njit(nogil=True, error_model="numpy")
def swiglu(gate, up, alpha, limit):
    """gate * sigmoid(alpha * gate) * (up + 1); a NaN stays one, as no comparison holds for it."""
    one = np.float32(1)
    if gate > limit:
        gate = limit
    if up > limit:
        up = limit
    if up < -limit:
        up = -limit
    return gate * (one / (one + np.exp(-alpha * gate))) * (up + one)


@cache
def few_tokens(path: machine.Path):
    """The compiled kernel of one path; x is uint16 for avx512_bf16, else float32."""
    order, product = np.array(LAYOUTS[path].order), tile_product(path)
    sources = fingerprint()

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def kernel(
        x,
        tokens,  # of a pair
        used,  # the experts in use
        starts,  # an expert's first pair, and the number of pairs at the end
        where,  # [token slot]: its pair
        weights,  # [token slot]
        gate_up_blocks,
        gate_up_scales,
        gate_up_bias,
        down_blocks,
        down_scales,
        down_bias,
        alpha,
        limit,
        arranged,  # overwritten
        activation,  # overwritten
        activation_arranged,  # overwritten
        out,
    ):
        _ = sources
        hidden, pairs, rows = x.shape[1], tokens.size, gate_up_bias.shape[1]

        places = arrange(x, order, arranged)[tokens]
        groups, tiles = gate_up_scales.shape[2], -(-rows // ROWS)
        packed, shared = gate_up_blocks.ctypes.data, gate_up_scales.ctypes.data
        for index in prange(used.size * tiles):
            expert, first = used[index // tiles], index % tiles * ROWS
            begin, end = starts[index // tiles], starts[index // tiles + 1]
            count = min(ROWS, rows - first)
            products = np.empty((end - begin, ROWS), np.float32)
            row = expert * rows + first
            its_blocks, its_scales = packed + row * groups * GROUP_BYTES, shared + row * groups
            product(places[begin:end], its_blocks, its_scales, groups, count, products)
            for pair in range(begin, end):
                for i in range(0, count, 2):
                    gate = products[pair - begin, i] + number(gate_up_bias, (expert, first + i))
                    up = products[pair - begin, i + 1]
                    up += number(gate_up_bias, (expert, first + i + 1))
                    value = swiglu(gate, up, alpha, limit)
                    put(activation, (pair, (first + i) // 2), value)

        places = arrange(activation, order, activation_arranged)
        groups, tiles = down_scales.shape[2], -(-hidden // ROWS)
        packed, shared = down_blocks.ctypes.data, down_scales.ctypes.data
        each = np.empty((pairs, hidden), np.float32)
        for index in prange(used.size * tiles):
            expert, first = used[index // tiles], index % tiles * ROWS
            begin, end = starts[index // tiles], starts[index // tiles + 1]
            count = min(ROWS, hidden - first)
            row = expert * hidden + first
            its_blocks, its_scales = packed + row * groups * GROUP_BYTES, shared + row * groups
            own = each[begin:end, first : first + count]
            product(places[begin:end], its_blocks, its_scales, groups, count, own)
            for pair in range(begin, end):
                for i in range(first, first + count):
                    each[pair, i] += number(down_bias, (expert, i))

        for i in prange(hidden):
            for token in range(len(x)):
                total = np.float32(0)
                for slot in range(where.shape[1]):
                    total += weights[token, slot] * each[where[token, slot], i]
                put(out, (token, i), total)

    return kernel


def in_one_call(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    alpha: float,
    limit: float,
    path: machine.Path,
) -> Float[Tensor, "token hidden"]:
    """All experts of a few tokens, in the products of one path."""
    chosen = array(ids).astype(np.int64)
    order = np.argsort(chosen, axis=None, kind="stable")
    used, starts = np.unique(chosen.ravel()[order], return_index=True)
    where = np.empty_like(order)
    where[order] = np.arange(order.size)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    layout = LAYOUTS[path]
    follow_torch()
    few_tokens(path)(
        array(x),
        order // chosen.shape[1],
        used,
        np.append(starts, order.size),
        where.reshape(chosen.shape),
        array(weights.float()),
        array(experts.gate_up_blocks),
        array(experts.gate_up_scales),
        array(experts.gate_up_bias),
        array(experts.down_blocks),
        array(experts.down_scales),
        array(experts.down_bias),
        np.float32(alpha),
        np.float32(limit),
        room(len(x), x.shape[1], layout.elements, layout.bits),
        array(torch.empty(order.size, experts.width, dtype=x.dtype)),
        room(order.size, experts.width, layout.elements, layout.bits),
        array(out),
    )
    return out


def one_by_one(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """An expert after the other, with all its tokens."""
    out = torch.zeros_like(x, dtype=torch.float32)
    for expert in ids.unique().tolist():
        token, slot = (ids == expert).nonzero(as_tuple=True)
        both = mxfp4_linear(
            x[token],
            experts.gate_up_blocks[expert],
            experts.gate_up_scales[expert],
            experts.gate_up_bias[expert],
        )
        activation = clamped_swiglu(both.float(), alpha, limit).to(x.dtype)
        own = mxfp4_linear(
            activation,
            experts.down_blocks[expert],
            experts.down_scales[expert],
            experts.down_bias[expert],
        )
        out.index_add_(0, token, own.float() * weights[token, slot, None].float())
    return out.to(x.dtype)


def expert_mlp(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    *,
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """The operation of `reference.expert_mlp`; between its products numbers have x's type."""
    groups = min(experts.gate_up_scales.shape[2], experts.down_scales.shape[2])
    path = machine.path_for(x.dtype, groups)
    if path is None or ids.numel() == 0:
        return reference.expert_mlp(x, ids, weights, experts, alpha=alpha, limit=limit)
    if ids.numel() <= FEW * len(experts.gate_up_scales):  # tokens of an expert, on average
        return in_one_call(x, ids, weights, experts, alpha, limit, path)
    return one_by_one(x, ids, weights, experts, alpha, limit)
