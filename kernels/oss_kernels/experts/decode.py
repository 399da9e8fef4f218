"""The experts in Triton for a few tokens: sum over slots of weight * down(swiglu(gate_up(x))).

Two kernels of matrix-vector products, limited by memory:

    gate_up: program (rows, pair)            a pair is a token and one of its experts
        rows 16n .. 16n + 15 of the pair's expert: gate, up, gate, up, ...  -> 8 activations

    down: program (rows, token)
        slot 0:  8 rows of its expert x activations of pair 0 ... + bias, x weight
        slot 1:  8 rows of its expert x activations of pair 1 ... + bias, x weight
        ...                                                 summed in slot order -> 8 outputs

A weight is read from memory once for each token that uses its expert, as 4.25 bits. The sum over
slots stays in one program. So nothing is added atomically, and a token's result is the same in
every run and for any number of tokens. Between the two kernels the activations go through memory,
because down needs all of them. There they are rounded to x's dtype.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.experts.swiglu import clamped_swiglu
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.launch import Launch
from oss_kernels.mxfp4_linear.decode import GROUPS, row_dots

ONE = tl.constexpr(1)  # the number of tokens for `row_dots`, which needs a constexpr


@triton.jit
def gate_up_kernel(
    x,
    ids,
    words,
    scales,
    bias,
    activation,
    width,
    groups,
    alpha,
    limit,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    pair = tl.program_id(1).to(tl.int64)
    row_count = 2 * width
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    before = tl.load(ids + pair).to(tl.int64) * row_count  # rows of the experts before this one
    sums = row_dots(  # [1, ROWS]
        x + pair // SLOTS * groups * 32,
        words + before * groups * 4,
        scales + before * groups,
        row,
        1,
        row_count,
        groups,
        TOKENS=ONE,
        GROUPS=GROUPS,
    )
    own_bias = tl.load(bias + before + row, mask=row < row_count, other=0.0).to(tl.float32)
    gate, up = tl.split(tl.reshape(tl.sum(sums, axis=0) + own_bias, (ROWS // 2, 2)))
    unit = tl.program_id(0) * (ROWS // 2) + tl.arange(0, ROWS // 2)
    values = clamped_swiglu(gate, up, alpha, limit)
    tl.store(activation + pair * width + unit, values, mask=unit < width)


@triton.jit
def down_kernel(
    activation,
    ids,
    weights,
    words,
    scales,
    bias,
    out,
    hidden,
    groups,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    token = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float32)
    for slot in range(SLOTS):
        pair = token * SLOTS + slot
        before = tl.load(ids + pair).to(tl.int64) * hidden
        sums = row_dots(  # [1, ROWS]
            activation + pair * groups * 32,
            words + before * groups * 4,
            scales + before * groups,
            row,
            1,
            hidden,
            groups,
            TOKENS=ONE,
            GROUPS=GROUPS,
        )
        own_bias = tl.load(bias + before + row, mask=row < hidden, other=0.0).to(tl.float32)
        total += (tl.sum(sums, axis=0) + own_bias) * tl.load(weights + pair)
    tl.store(out + token * hidden + row, total, mask=row < hidden)


def make_launches(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    experts: ExpertWeights,
    activation: Tensor,
    out: Tensor,
    alpha: float,
    limit: float,
) -> tuple[Launch, Launch]:
    """The launches of gate_up and down.

    All tensors are contiguous. activation [token * slot, width] is scratch.
    """
    tokens, slots = ids.shape
    # A down program computes all slots of a token, so it has fewer rows to give more programs.
    gate_up_rows, down_rows = 16, 8
    gate_up = Launch(
        gate_up_kernel,
        (triton.cdiv(2 * experts.width, gate_up_rows), tokens * slots),
        {
            "x": x,
            "ids": ids,
            "words": experts.gate_up_blocks.view(torch.int32),
            "scales": experts.gate_up_scales,
            "bias": experts.gate_up_bias,
            "activation": activation,
            "width": experts.width,
            "groups": experts.gate_up_scales.shape[2],
            "alpha": alpha,
            "limit": limit,
        },
        {"SLOTS": slots, "ROWS": gate_up_rows, "GROUPS": GROUPS},
    )
    down = Launch(
        down_kernel,
        (triton.cdiv(experts.hidden, down_rows), tokens),
        {
            "activation": activation,
            "ids": ids,
            "weights": weights,
            "words": experts.down_blocks.view(torch.int32),
            "scales": experts.down_scales,
            "bias": experts.down_bias,
            "out": out,
            "hidden": experts.hidden,
            "groups": experts.down_scales.shape[2],
        },
        {"SLOTS": slots, "ROWS": down_rows, "GROUPS": GROUPS},
    )
    return gate_up, down


def expert_mlp(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    *,
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """The operation of `reference.expert_mlp` for contiguous tensors.

    Correct for any number of tokens, fast for a few.
    """
    activation, out = x.new_empty(ids.numel(), experts.width), torch.empty_like(x)
    for launch in make_launches(x, ids, weights, experts, activation, out, alpha, limit):
        launch()
    return out
