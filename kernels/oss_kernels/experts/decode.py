"""The experts in Triton for a few tokens: sum over slots of weight * down(swiglu(gate_up(x))).

Two kernels of matrix-vector products, limited by memory. Each program is one warp, and loads while
it computes (`mxfp4_linear/decode.py`):

    gate_up: program (rows, pair)            a pair is a token and one of its experts
        8 rows of the pair's expert: gate, up, gate, up, ...  -> 4 activations

    down: program (rows, token), whose steps take turns among the slots
        step 0:  32 groups of 4 rows of slot 0's expert x activations of pair 0
        step 1:  32 groups of 4 rows of slot 1's expert x activations of pair 1    x weights
        ...                                                    summed in order -> 4 outputs

A weight is read from memory once for each token that uses its expert, as 4.25 bits. In `down` five
steps are loading while one is used, so all four slots load together. Nothing is added atomically,
and a token's result is the same in every run and for any number of tokens. Both kernels read
arranged activations (`mxfp4/arrange.py`); `gate_up` writes its own in that order, rounded to x's
dtype.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.experts.swiglu import clamped_swiglu
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.launch import Launch
from oss_kernels.mxfp4.arrange import launch_arrange, store_arranged
from oss_kernels.mxfp4_linear.decode import GROUPS, STAGES, count_rows, row_dots, step_dots

ONE = tl.constexpr(1)  # the number of tokens for `row_dots`, which needs a constexpr


@triton.jit
def gate_up_kernel(
    x, ids, words, scales, bias, activation, width, groups, alpha, limit,
    SLOTS: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(1).to(tl.int64)
    row_count = 2 * width
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    before = tl.load(ids + pair).to(tl.int64) * row_count  # rows of the experts before this one
    sums = row_dots(  # [1, ROWS]
        x + pair // SLOTS * groups * 32, words + before * groups * 4, scales + before * groups,
        row, 1, row_count, groups, TOKENS=ONE, GROUPS=GROUPS, STAGES=STAGES,
    )  # fmt: skip
    own_bias = tl.load(bias + before + row, mask=row < row_count, other=0.0).to(tl.float32)
    gate, up = tl.split(tl.reshape(tl.sum(sums, axis=0) + own_bias, (ROWS // 2, 2)))
    unit = tl.program_id(0) * (ROWS // 2) + tl.arange(0, ROWS // 2)
    values = clamped_swiglu(gate, up, alpha, limit)
    store_arranged(activation + pair * width, unit, width, values, unit < width)


@triton.jit
def down_kernel(
    activation, ids, weights, words, scales, bias, residual, out, hidden, groups,
    SLOTS: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float32)
    for slot in range(SLOTS):
        pair = token * SLOTS + slot
        place = tl.load(ids + pair).to(tl.int64) * hidden + row
        own_bias = tl.load(bias + place, mask=row < hidden, other=0.0).to(tl.float32)
        total += own_bias * tl.load(weights + pair)
    sums = tl.zeros((1, ROWS, GROUPS), tl.float32)
    steps = tl.cdiv(groups, GROUPS) * SLOTS
    for step in tl.range(0, steps, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        pair = token * SLOTS + step % SLOTS
        before = tl.load(ids + pair).to(tl.int64) * hidden
        dots = step_dots(
            activation + pair * groups * 32, words + before * groups * 4, scales + before * groups,
            row, 1, hidden, groups, step // SLOTS * GROUPS, TOKENS=ONE, GROUPS=GROUPS,
        )  # fmt: skip
        sums += dots * tl.load(weights + pair)
    total += tl.sum(tl.sum(sums, axis=2), axis=0)
    if residual is not None:  # decided at compile time
        total += tl.load(residual + token * hidden + row, mask=row < hidden, other=0.0)
    tl.store(out + token * hidden + row, total, mask=row < hidden)


@dataclass(frozen=True)
class Chosen:
    """Which experts each token uses: ids and float32 weights [token slot], contiguous."""

    ids: Tensor
    weights: Tensor


def launch_gate_up(
    arranged: Tensor, chosen: Chosen, experts: ExpertWeights, activation: Tensor,
    alpha: float, limit: float,
) -> Launch:  # fmt: skip
    """The launch of gate_up: one program per few rows and pair.

    arranged [token hidden] and activation [pair width] contain arranged activations.
    """
    rows = count_rows(1, arranged.dtype)
    return Launch(
        gate_up_kernel,
        (triton.cdiv(2 * experts.width, rows), chosen.ids.numel()),
        {
            "x": arranged,
            "ids": chosen.ids,
            "words": experts.gate_up_blocks.view(torch.int32),
            "scales": experts.gate_up_scales,
            "bias": experts.gate_up_bias,
            "activation": activation,
            "width": experts.width,
            "groups": experts.gate_up_scales.shape[2],
            "alpha": alpha,
            "limit": limit,
        },
        {"SLOTS": chosen.ids.shape[1], "ROWS": rows, "GROUPS": GROUPS, "STAGES": STAGES},
        num_warps=1,
    )


def launch_down(
    activation: Tensor, chosen: Chosen, experts: ExpertWeights, residual: Tensor | None, out: Tensor
) -> Launch:
    """The launch of down: one program per few rows and token. `out` may be the residual."""
    (tokens, slots), rows = chosen.ids.shape, count_rows(2, activation.dtype)
    return Launch(
        down_kernel,
        (triton.cdiv(experts.hidden, rows), tokens),
        {
            "activation": activation,
            "ids": chosen.ids,
            "weights": chosen.weights,
            "words": experts.down_blocks.view(torch.int32),
            "scales": experts.down_scales,
            "bias": experts.down_bias,
            "out": out,
            "hidden": experts.hidden,
            "groups": experts.down_scales.shape[2],
        }
        | ({} if residual is None else {"residual": residual}),
        {"SLOTS": slots, "ROWS": rows, "GROUPS": GROUPS, "STAGES": 2 * STAGES}
        | ({"residual": None} if residual is None else {}),
        num_warps=1,
    )


def make_launches(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    experts: ExpertWeights,
    activation: Tensor,
    out: Tensor,
    alpha: float,
    limit: float,
) -> tuple[Launch, Launch, Launch]:
    """The launches of arrange, gate_up and down.

    All tensors are contiguous. activation [token * slot, width] is scratch.
    """
    arranged, chosen = torch.empty_like(x), Chosen(ids, weights)
    return (
        launch_arrange(x, arranged),
        launch_gate_up(arranged, chosen, experts, activation, alpha, limit),
        launch_down(activation, chosen, experts, None, out),
    )


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
