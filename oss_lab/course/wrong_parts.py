"""The functions of the table of mistakes: each is a part of the model with one thing wrong.

A wrong part takes the arguments of the right one (`help(oss_lab.course.parts)`), and calls it where
only its arguments or its result are wrong. Some are made by a function of a number, such as
`change_window`.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from oss_kernels import mxfp4
from oss_kernels.mxfp4 import dequantize
from torch import Tensor
from torch.nn.functional import pad

from oss_lab.model.attention import softmax_with_sink, visible_keys
from oss_lab.model.moe import clamped_swiglu
from oss_lab.model.norm import rms_norm
from oss_lab.model.rope import rotate, yarn_frequencies

Function = Callable[..., Any]
NO_SINK = torch.finfo(torch.float32).min  # finite: padding sees no key, so only its sink is left


# Positions


def rotate_backward(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return rotate(x, cos, -sin)


def rotate_neighbors(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Dimension 2i is paired with 2i + 1: such pairs are sorted into halves, rotated, sorted back.

    The products of queries and keys do not depend on the order of the dimensions.
    """
    halves = x.unflatten(-1, (-1, 2)).mT.flatten(-2)
    return rotate(halves, cos, sin).unflatten(-1, (2, -1)).mT.flatten(-2)


def plain_frequencies(
    head_dim: int, theta: float, factor: float, low: float, high: float
) -> Tensor:
    return yarn_frequencies(head_dim, theta, 1.0, low, high)


def slow_all_pairs(head_dim: int, theta: float, factor: float, low: float, high: float) -> Tensor:
    return yarn_frequencies(head_dim, theta, 1.0, low, high) / factor


def round_limits(head_dim: int, theta: float, factor: float, low: float, high: float) -> Tensor:
    return yarn_frequencies(head_dim, theta, factor, math.floor(low), math.ceil(high))


# Attention


def change_window(change: Callable[[int], int | None]) -> Function:
    """A mask whose window is `change` of the right one."""
    return lambda queries, keys, window: visible_keys(
        queries, keys, None if window is None else change(window)
    )


def drop_sinks(scores: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    return softmax_with_sink(scores, torch.full_like(sinks, NO_SINK))


def scale_sinks(factor: float) -> Function:
    return lambda scores, sinks: softmax_with_sink(scores, sinks * factor)


# Experts


def softmax_first(router_logits: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    weights, ids = router_logits.softmax(-1).topk(slots)
    return ids, weights


def weigh_equally(router_logits: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    chosen, ids = router_logits.topk(slots)
    return ids, torch.full_like(chosen, 1 / slots)


def use_experts(count: int) -> Function:
    """A router that gives all weight to the first `count` of the chosen experts."""

    def route(router_logits: Tensor, slots: int) -> tuple[Tensor, Tensor]:
        chosen, ids = router_logits.topk(slots)
        return ids, pad(chosen[..., :count].softmax(-1), (0, slots - count))

    return route


def leave_out_one(gate: Tensor, up: Tensor, alpha: float, limit: float) -> Tensor:
    """g * sigmoid(alpha * g) * u, for any limit."""
    zero = torch.zeros_like(up)
    return clamped_swiglu(gate, up, alpha, limit) - clamped_swiglu(gate, zero, alpha, limit)


def swap_gate_and_up(gate: Tensor, up: Tensor, alpha: float, limit: float) -> Tensor:
    return clamped_swiglu(up, gate, alpha, limit)


def use_slope_1(gate: Tensor, up: Tensor, alpha: float, limit: float) -> Tensor:
    return clamped_swiglu(gate, up, 1.0, limit)


def leave_out_clamps(gate: Tensor, up: Tensor, alpha: float, limit: float) -> Tensor:
    return clamped_swiglu(gate, up, alpha, math.inf)


def clamp_gate_twice(gate: Tensor, up: Tensor, alpha: float, limit: float) -> Tensor:
    return clamped_swiglu(gate.clamp(min=-limit), up, alpha, limit)


# MXFP4


def swap_nibbles(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return dequantize((blocks << 4) | (blocks >> 4), scales, dtype)


def split_block(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Reads the 16 low nibbles of a block first, then the 16 high ones, as GGML stores a block."""
    wide = dequantize(blocks, scales, dtype)
    return wide.unflatten(-1, (-1, mxfp4.BLOCK // 2, 2)).mT.flatten(-3)


def raise_scales(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return dequantize(blocks, scales, dtype) * 2


def ignore_sign(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return dequantize(blocks, scales, dtype).abs()


def shift_scales(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return dequantize(blocks, scales.roll(1, dims=-1), dtype)


def cut_sixes(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The code of 6 is 7, that of 4 is 6; bit 3 is the sign."""
    codes = mxfp4.unpack_nibbles(blocks)
    codes = codes - ((codes & 7) == 7).to(codes.dtype)
    return dequantize(mxfp4.pack_nibbles(codes), scales, dtype)


# Norm


def subtract_mean(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    return rms_norm(x - x.mean(-1, keepdim=True), scale, eps)


def use_epsilon(eps: float) -> Function:
    return lambda x, scale, _: rms_norm(x, scale, eps)
