"""The experts in Triton for many tokens: tiles of tokens that share an expert, as `grouping` cuts.

    expert 2's gate_up                    x of expert 2's tokens
    rows  [ ROWS gates, ROWS ups ]   x    [hidden, TOKENS]   <- program (rows, tile) of gate_up
          activation [pair width], in the order of the sorted pairs
    expert 2's down [ ROWS ]         x    [width, TOKENS]    <- program (rows, tile) of down
          by_slot [token slot hidden], weighted
    sum over slots, in their order                           <- program (token, columns) of combine

A weight is read once a tile of tokens, as 4.25 bits, and becomes bfloat16, which holds it exactly,
just before the product. Weights are the product's left side: their rows are always enough to fill
matrix instructions, tokens of one expert often are not. No two programs write one place and every
sum has one order, so results are the same every time. Read `prefill_gate_up`, then
`prefill_down`.
"""

from typing import Any

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.experts.grouping import Tiles, tiles_of
from oss_kernels.experts.prefill_down import combine_kernel, down_kernel
from oss_kernels.experts.prefill_gate_up import gate_up_kernel
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.launch import Launch, dot_dtype

ROWS = 64  # of weights in a tile: the fewest that a warp group's matrix instruction takes


def tile_size(pairs: int, experts: int, dtype: torch.dtype) -> int:
    """Tokens of a tile: what an expert has on average, from 16 to 128.

    32 at most in float32, which no matrix unit multiplies exactly.
    """
    average = triton.next_power_of_2(triton.cdiv(pairs, experts))
    return max(16, min(average, 32 if dtype == torch.float32 else 128))


def launches(
    x: Tensor,
    weights: Tensor,
    experts: ExpertWeights,
    tiles: Tiles,
    activation: Tensor,
    by_slot: Tensor,
    out: Tensor,
    alpha: float,
    limit: float,
) -> tuple[Launch, Launch, Launch]:
    """gate_up, down and combine; every tensor contiguous.

    activation [pair width] and by_slot [pair hidden] (float32) are scratch.
    """
    slots, size = weights.shape[1], tile_size(weights.numel(), experts.experts, x.dtype)
    tiling = {"ROWS": ROWS, "TOKENS": size, "DOT_DTYPE": dot_dtype(x.dtype)}
    # A large tile's sums fill the registers: they take twice as many lanes, and gate_up, which has
    # two sums, half as many columns a step.
    options: dict[str, Any] = {"num_warps": 8 if size >= 64 else 4, "num_stages": 3}
    gate_up_groups = 1 if size == 128 else 2
    where = {
        "pairs": tiles.pairs,
        "tile_expert": tiles.expert,
        "tile_first": tiles.first,
        "tile_end": tiles.end,
    }
    gate_up = Launch(
        gate_up_kernel,
        (triton.cdiv(experts.width, ROWS), len(tiles.first)),
        {
            "x": x,
            "blocks": experts.gate_up_blocks,
            "scales": experts.gate_up_scales,
            "bias": experts.gate_up_bias,
            **where,
            "activation": activation,
            "width": experts.width,
            "groups": experts.gate_up_scales.shape[2],
            "alpha": alpha,
            "limit": limit,
        },
        {"SLOTS": slots, "GROUPS": gate_up_groups, **tiling},
        **options,
    )
    down = Launch(
        down_kernel,
        (triton.cdiv(experts.hidden, ROWS), len(tiles.first)),
        {
            "activation": activation,
            "blocks": experts.down_blocks,
            "scales": experts.down_scales,
            "bias": experts.down_bias,
            "weights": weights,
            **where,
            "by_slot": by_slot,
            "hidden": experts.hidden,
            "groups": experts.down_scales.shape[2],
        },
        {"GROUPS": 2, **tiling},
        **options,
    )
    combine = Launch(
        combine_kernel,
        (len(x), triton.cdiv(experts.hidden, 1024)),
        {"by_slot": by_slot, "out": out, "hidden": experts.hidden},
        {"SLOTS": slots, "COLUMNS": 1024},
    )
    return gate_up, down, combine


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
    of tokens, meant for many."""
    tiles = tiles_of(ids, experts.experts, tile_size(ids.numel(), experts.experts, x.dtype))
    activation = x.new_empty(ids.numel(), experts.width)
    by_slot = x.new_empty(ids.numel(), experts.hidden, dtype=torch.float32)
    out = torch.empty_like(x)
    for launch in launches(x, weights, experts, tiles, activation, by_slot, out, alpha, limit):
        launch()
    return out
