"""The experts in Triton for many tokens: sum over slots of weight * down(swiglu(gate_up(x))).

`grouping` makes tiles of tokens that share an expert. Three kernels follow:

    expert 2's gate_up                    x of expert 2's tokens
    rows  [ ROWS gates, ROWS ups ]   x    [hidden, TOKENS]   <- program (rows, tile) of gate_up
          activation [pair width], in the order of the sorted pairs
    expert 2's down [ ROWS ]         x    [width, TOKENS]    <- program (rows, tile) of down
          by_slot [token slot hidden], weighted
    sum over slots, in slot order                            <- program (token, columns) of combine

Each tile of tokens reads its weights once, as 4.25 bits, and decodes them to bfloat16, which is
exact, just before the product. Weights are the left operand: they always have enough rows to fill
matrix instructions, and the tokens of one expert often do not. No two programs write the same
place and every sum has a fixed order, so results are the same in every run. Read `prefill_gate_up`,
then `prefill_down`.
"""

from typing import Any

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.experts.grouping import Tiles, make_tiles
from oss_kernels.experts.prefill_down import combine_kernel, down_kernel
from oss_kernels.experts.prefill_gate_up import gate_up_kernel
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.launch import Launch, dot_dtype

ROWS = 64  # rows of weights per tile: the fewest for a warp group's matrix instruction


def tile_size(pairs: int, experts: int, dtype: torch.dtype) -> int:
    """Tokens per tile: an expert's average number of tokens, between 16 and 128.

    At most 32 in float32, which is multiplied without matrix instructions, as they would round it.
    """
    average = triton.next_power_of_2(triton.cdiv(pairs, experts))
    return max(16, min(average, 32 if dtype == torch.float32 else 128))


def make_launches(
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
    """The launches of gate_up, down and combine.

    All tensors are contiguous. activation [pair width] and by_slot [pair hidden] (float32) are
    scratch.
    """
    slots, size = weights.shape[1], tile_size(weights.numel(), experts.experts, x.dtype)
    tiling = {"ROWS": ROWS, "TOKENS": size, "DOT_DTYPE": dot_dtype(x.dtype)}
    # The sums of a large tile fill the registers, so it uses twice as many warps. gate_up has two
    # sums, so with the largest tile it also takes half as many columns per step.
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
    """The operation of `reference.expert_mlp` for contiguous tensors.

    Correct for any number of tokens, fast for many.
    """
    tiles = make_tiles(ids, experts.experts, tile_size(ids.numel(), experts.experts, x.dtype))
    activation = x.new_empty(ids.numel(), experts.width)
    by_slot = x.new_empty(ids.numel(), experts.hidden, dtype=torch.float32)
    out = torch.empty_like(x)
    for launch in make_launches(x, weights, experts, tiles, activation, by_slot, out, alpha, limit):
        launch()
    return out
