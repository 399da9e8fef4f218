"""The experts in Triton for few tokens: matrix-vector products bound by memory.

    gate_up: program (rows, pair)            a pair is a token with one of its experts
        rows 16n .. 16n + 15 of the pair's expert: gate, up, gate, up, ...  -> 8 activations

    down: program (rows, token)
        slot 0:  8 rows of its expert x activations of pair 0 ... + bias, x weight
        slot 1:  8 rows of its expert x activations of pair 1 ... + bias, x weight
        ...                                               added up in slot order -> 8 outputs

A weight is read from memory once for each token that chose its expert, as 4.25 bits. The sum over
slots stays in one program, so that nothing is added atomically and results are the same every time,
whatever the number of tokens. Activations go through memory between the two: down needs all of
them. They are rounded to x's type there.
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

ONE = tl.constexpr(1)  # token for `row_dots`; a constexpr, as one kernel passes it to another


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
    before = tl.load(ids + pair).to(tl.int64) * row_count  # rows of earlier experts
    sums = row_dots(
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
        sums = row_dots(
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


def launches(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    experts: ExpertWeights,
    activation: Tensor,
    out: Tensor,
    alpha: float,
    limit: float,
) -> tuple[Launch, Launch]:
    """gate_up and down; every tensor contiguous. activation [token * slot, width] is scratch."""
    tokens, slots = ids.shape
    # A program of down takes all slots of a token: fewer rows each make more programs of them.
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
    """The operation of `reference.expert_mlp` with every tensor contiguous; right for any number
    of tokens, meant for few."""
    activation, out = x.new_empty(ids.numel(), experts.width), torch.empty_like(x)
    for launch in launches(x, ids, weights, experts, activation, out, alpha, limit):
        launch()
    return out
