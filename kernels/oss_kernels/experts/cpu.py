"""A token's experts on the CPU: one call for a few tokens, an expert at a time for many.

For one token the work is to read the packed weights of its experts, each once. Pairs of a token and
an expert are sorted by expert, so that tokens that share one find its rows in the first cache:

    pairs      (expert 3, token 0) (expert 3, token 1) (expert 7, token 0) ...
    threads    share the rows of all experts in use: gate and up row of a number, SwiGLU at once
    threads    share the rows of all experts in use: down, weighted
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
from oss_kernels.cpu.e2m1_rows import GROUP_BYTES, LAYOUTS, row_product
from oss_kernels.cpu.numbers import array, number, put
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.experts import reference
from oss_kernels.experts.reference import clamped_swiglu
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.mxfp4_linear.cpu import mxfp4_linear

FEW = 8  # tokens; a choice, not yet a measurement: `oss_kernels.bench --cpu` times both sides


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
def few_tokens(into: machine.Path, out_of: machine.Path):
    """The compiled kernel: one path for gate and up, one, of float32 numbers, for down."""
    order, down_order = np.array(LAYOUTS[into].order), np.array(LAYOUTS[out_of].order)
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
        ready,  # overwritten
        out,
    ):
        _ = sources
        count, hidden = x.shape
        pairs, experts, width = tokens.size, used.size, gate_up_bias.shape[1] // 2
        slots = where.shape[1]

        for token in range(count):
            arrange(x[token], order, arranged[token])
        at, step = arranged.ctypes.data, arranged.strides[0]
        groups = gate_up_scales.shape[2]
        packed, shared = gate_up_blocks.ctypes.data, gate_up_scales.ctypes.data
        activation = np.empty((pairs, width), np.float32)
        for index in prange(experts * width):
            i = index % width
            expert = used[index // width]
            row = (expert * width + i) * 2
            gate_blocks, gate_scales = packed + row * groups * GROUP_BYTES, shared + row * groups
            up_blocks, up_scales = gate_blocks + groups * GROUP_BYTES, gate_scales + groups
            for pair in range(starts[index // width], starts[index // width + 1]):
                own = at + tokens[pair] * step
                gate = row_product(into, own, gate_blocks, gate_scales, groups)
                up = row_product(into, own, up_blocks, up_scales, groups)
                gate += number(gate_up_bias, (expert, 2 * i))
                up += number(gate_up_bias, (expert, 2 * i + 1))
                activation[pair, i] = swiglu(gate, up, alpha, limit)

        for pair in range(pairs):
            arrange(activation[pair], down_order, ready[pair])
        ready_at, ready_step = ready.ctypes.data, ready.strides[0]
        narrow = down_scales.shape[2]
        down, down_shared = down_blocks.ctypes.data, down_scales.ctypes.data
        each = np.empty((pairs, hidden), np.float32)
        for index in prange(experts * hidden):
            i = index % hidden
            expert = used[index // hidden]
            row = expert * hidden + i
            for pair in range(starts[index // hidden], starts[index // hidden + 1]):
                value = row_product(
                    out_of,
                    ready_at + pair * ready_step,
                    down + row * narrow * GROUP_BYTES,
                    down_shared + row * narrow,
                    narrow,
                )
                each[pair, i] = value + number(down_bias, (expert, i))

        for i in prange(hidden):
            for token in range(count):
                total = np.float32(0)
                for slot in range(slots):
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
    into: machine.Path,
    out_of: machine.Path,
) -> Float[Tensor, "token hidden"]:
    """All experts of a few tokens; `into` multiplies gate and up, `out_of` down."""
    chosen = array(ids).astype(np.int64)
    order = np.argsort(chosen, axis=None, kind="stable")
    used, starts = np.unique(chosen.ravel()[order], return_index=True)
    where = np.empty_like(order)
    where[order] = np.arange(order.size)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    follow_torch()
    few_tokens(into, out_of)(
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
        room(x.shape[0], x.shape[1], LAYOUTS[into].elements, LAYOUTS[into].bits),
        room(order.size, experts.width, LAYOUTS[out_of].elements, LAYOUTS[out_of].bits),
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
    """An expert after the other, with all its tokens.

    Between the products numbers have x's type, as in the published model.
    """
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
    """The operation of `reference.expert_mlp`; a few tokens in float32 throughout, as there."""
    into = machine.path_for(x.dtype, experts.gate_up_scales.shape[2])
    out_of = machine.path_for(torch.float32, experts.down_scales.shape[2])
    if into is None or out_of is None or ids.numel() == 0:
        return reference.expert_mlp(x, ids, weights, experts, alpha=alpha, limit=limit)
    if len(x) <= FEW:
        return in_one_call(x, ids, weights, experts, alpha, limit, into, out_of)
    return one_by_one(x, ids, weights, experts, alpha, limit)
