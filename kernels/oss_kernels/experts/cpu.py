"""A token's experts on the CPU: one compiled call for few tokens, and another for many with AMX.

`cpu_rows` and `cpu_tiles` have the calls. Without AMX, many tokens are computed one expert at a
time: a linear layer, SwiGLU and a second linear layer.
"""

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.cpu import machine
from oss_kernels.cpu.amx import ROWS, SIDE, TOKENS
from oss_kernels.cpu.arrange import empty_arranged
from oss_kernels.cpu.e2m1_layouts import LAYOUTS, choose_path
from oss_kernels.cpu.e2m1_panels import STEP
from oss_kernels.cpu.numbers import as_numpy
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.experts import reference
from oss_kernels.experts.checks import check_experts, check_range
from oss_kernels.experts.cpu_rows import few_tokens_kernel
from oss_kernels.experts.cpu_tiles import GROUPS, TILES, many_tokens_kernel
from oss_kernels.experts.reference import clamped_swiglu
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.mxfp4_linear.cpu import FEW, mxfp4_linear

FEW_TILED = 3  # tokens per expert: with more, `cpu_tiles` is faster than `cpu_rows`


def compute_in_one_call(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    alpha: float,
    limit: float,
    path: machine.InstructionSet,
) -> Float[Tensor, "token hidden"]:
    """All experts of a few tokens in one compiled call, with the given path."""
    chosen = as_numpy(ids).astype(np.int64)
    by_expert = np.argsort(chosen, axis=None, kind="stable")
    used, starts = np.unique(chosen.ravel()[by_expert], return_index=True)
    check_range(used[0], used[-1], experts)
    where = np.empty_like(by_expert)
    where[by_expert] = np.arange(by_expert.size)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    layout = LAYOUTS[path]
    follow_torch()
    few_tokens_kernel(path)(
        as_numpy(x),
        by_expert // chosen.shape[1],
        used,
        np.append(starts, by_expert.size),
        where.reshape(chosen.shape),
        as_numpy(weights.float()),
        as_numpy(experts.gate_up_blocks),
        as_numpy(experts.gate_up_scales),
        as_numpy(experts.gate_up_bias),
        as_numpy(experts.down_blocks),
        as_numpy(experts.down_scales),
        as_numpy(experts.down_bias),
        np.float32(alpha),
        np.float32(limit),
        empty_arranged(len(x), x.shape[1], layout.elements, layout.bits),
        as_numpy(torch.empty(by_expert.size, experts.width, dtype=x.dtype)),
        empty_arranged(by_expert.size, experts.width, layout.elements, layout.bits),
        as_numpy(out),
    )
    return out


def fill_tiles(
    ids: Int[Tensor, "token slot"], weights: Float[Tensor, "token slot"], experts: ExpertWeights
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sort pairs of a token and an expert by expert, in tiles that belong to one expert each.

    Returns the experts in use; the first tile of each, then the number of tiles; and the token and
    weight of each place [tile SIDE]. An empty place has token -1.
    """
    used, counts = (each.numpy() for each in ids.unique(return_counts=True))
    check_range(int(used[0]), int(used[-1]), experts)
    starts = np.append(0, np.cumsum(-(-counts // SIDE)))
    pairs = np.argsort(as_numpy(ids), axis=None, kind="stable")
    # An expert's n pairs are in the first n places of its tiles.
    skipped = SIDE * starts[:-1] - np.append(0, np.cumsum(counts)[:-1])
    places = np.arange(pairs.size) + np.repeat(skipped, counts)
    tokens = np.full((starts[-1], SIDE), -1)
    shares = np.zeros((starts[-1], SIDE), np.float32)
    tokens.ravel()[places] = pairs // ids.shape[1]
    shares.ravel()[places] = as_numpy(weights.float()).ravel()[pairs]
    return used.astype(np.int64), starts, tokens, shares


def compute_in_tiles(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """All experts of many tokens in one compiled call, with AMX. x is bfloat16."""
    used, starts, tokens, shares = fill_tiles(ids, weights, experts)
    out = torch.zeros(x.shape)
    follow_torch()
    threads = numba.get_num_threads()
    many_tokens_kernel()(
        as_numpy(x),
        used,
        starts,
        tokens,
        shares,
        as_numpy(experts.gate_up_blocks),
        as_numpy(experts.gate_up_scales),
        as_numpy(experts.gate_up_bias),
        as_numpy(experts.down_blocks),
        as_numpy(experts.down_scales),
        as_numpy(experts.down_bias),
        np.float32(alpha),
        np.float32(limit),
        as_numpy(torch.empty(len(tokens), x.shape[1] // 2, SIDE, dtype=torch.uint32)),
        as_numpy(torch.empty(len(tokens), experts.width // 2, SIDE, dtype=torch.uint32)),
        as_numpy(torch.empty(threads, GROUPS * STEP, dtype=torch.uint8)),
        as_numpy(torch.empty(threads, TILES // 2, ROWS, TOKENS)),
        as_numpy(out),
    )
    return out.to(x.dtype)


def compute_one_by_one(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """One expert after the other, each with all its tokens."""
    out = torch.zeros_like(x, dtype=torch.float32)
    used = ids.unique().tolist()
    check_range(used[0], used[-1], experts)
    for expert in used:
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
    """The operation of `reference.expert_mlp`, without gradients.

    Activations between the two matrices are rounded to x's dtype.
    """
    check_experts(x, ids, weights, experts)
    groups = min(experts.gate_up_scales.shape[2], experts.down_scales.shape[2])
    path = choose_path(x.dtype, groups)
    if ids.numel() == 0:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    if path is None:
        check_range(int(ids.min()), int(ids.max()), experts)
        return reference.expert_mlp(x, ids, weights, experts, alpha=alpha, limit=limit)
    many = ids.numel() > FEW_TILED * experts.experts
    if many and x.dtype == torch.bfloat16 and machine.has_amx():
        return compute_in_tiles(x, ids, weights, experts, alpha, limit)
    if ids.numel() <= FEW * experts.experts:  # at most FEW tokens per expert on average
        return compute_in_one_call(x, ids, weights, experts, alpha, limit, path)
    return compute_one_by_one(x, ids, weights, experts, alpha, limit)
