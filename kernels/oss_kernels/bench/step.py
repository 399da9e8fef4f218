"""Whole steps on a GPU with random weights: decoding with and without a graph, and prefill.

The weights are made on the device, so no checkpoint is needed: 20b takes 14 GB.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.attention.kernel import attention
from oss_kernels.bench.limits import Limits
from oss_kernels.bench.timing import Time, time_calls, time_steps
from oss_kernels.cases import Make
from oss_kernels.device_step.plan import DevicePlan
from oss_kernels.device_step.weights import LayerWeights, StepWeights
from oss_kernels.experts.kernel import expert_mlp
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.linear.kernel import linear
from oss_kernels.rms_norm.kernel import rms_norm
from oss_kernels.router.kernel import router
from oss_kernels.shapes import Shapes

RANKS = 20  # most likely ids of a recorded step
EPS, ALPHA, LIMIT = 1e-5, 1.702, 7.0


def make_weights(shapes: Shapes, make: Make, capacity: int) -> StepWeights:
    """Random weights; layers alternate between a window and none, starting with a window."""
    columns = shapes.heads * shapes.head_dim
    layers = tuple(
        LayerWeights(
            attn_norm=make.normal(shapes.hidden),
            qkv=make.normal(shapes.qkv_rows, shapes.hidden),
            qkv_bias=make.normal(shapes.qkv_rows),
            sinks=make.normal(shapes.heads),
            out=make.normal(shapes.hidden, columns),
            out_bias=make.normal(shapes.hidden),
            moe_norm=make.normal(shapes.hidden),
            router=make.normal(shapes.experts, shapes.hidden),
            router_bias=make.normal(shapes.experts),
            experts=make_experts(shapes, make),
            window=None if number % 2 else shapes.window,
        )
        for number in range(shapes.layers)
    )
    return StepWeights(
        embedding=make.normal(shapes.vocab, shapes.hidden),
        layers=layers,
        norm=make.normal(shapes.hidden),
        unembedding=make.normal(shapes.vocab, shapes.hidden),
        cos=make.normal(capacity, shapes.head_dim),
        sin=make.normal(capacity, shapes.head_dim),
        slots=shapes.slots,
        eps=EPS,
        alpha=ALPHA,
        limit=LIMIT,
    )


def make_experts(shapes: Shapes, make: Make) -> ExpertWeights:
    experts, hidden, width = shapes.experts, shapes.hidden, shapes.width
    gate_up, gate_up_scales = make.mxfp4(experts, 2 * width, columns=hidden)
    down, down_scales = make.mxfp4(experts, hidden, columns=width)
    gate_up_bias, down_bias = make.normal(experts, 2 * width), make.normal(experts, hidden)
    return ExpertWeights(gate_up, gate_up_scales, gate_up_bias, down, down_scales, down_bias)


@dataclass(frozen=True)
class StepResult:
    """A decode step of one row, or a prefill of many tokens.

    Attributes:
        of_limit: useful bytes (decoding) or FLOP (prefill) per second, relative to the measured
            copy speed or matrix rate.
    """

    name: str
    microseconds: Time
    tokens_per_second: float
    of_limit: float


def measure_steps(weights: StepWeights, best: Limits, tokens: int) -> Iterator[StepResult]:
    """Decode steps after `tokens` tokens: graph off and on, recording off and on."""
    size = weights.count_bytes(1, tokens)
    for record in (False, True):
        plan = DevicePlan(weights, record=record, ranks=RANKS if record else 0)
        for graph in (False, True):
            if graph:
                plan.capture()
            plan.buffers.cursor.positions.fill_(tokens)
            time = time_steps(plan.step)
            rate = 1e6 / time.median
            name = f"step, graph {'on' if graph else 'off'}, recording {'on' if record else 'off'}"
            yield StepResult(name, time, rate, size * rate / best.copy)


def measure_shares(weights: StepWeights, tokens: int) -> dict[str, float]:
    """Microseconds per step of every kernel, launched from a graph one kernel after the other.

    Their sum is less than a step: it has no boundaries between different kernels.
    """
    plan = DevicePlan(weights)
    plan.buffers.cursor.positions.fill_(tokens)
    plan.step()
    by_kernel = defaultdict(list)
    for launch in plan.launches:
        by_kernel[launch.kernel.__name__].append(launch)
    # begin_step comes last, since it moves the position with every call.
    names = sorted(by_kernel, key=lambda name: name == "begin_step_kernel")
    return {name: time_calls(by_kernel[name]).median * len(by_kernel[name]) for name in names}


def measure_prefill(weights: StepWeights, best: Limits, tokens: int) -> StepResult:
    """A prompt of `tokens` tokens in one chunk, up to the logits of the last one."""
    like = weights.embedding
    ids = torch.randint(0, len(like), (tokens,), device=like.device)
    time = time_steps(lambda: prefill(weights, ids))
    rate = 1e6 * tokens / time.median
    # Every weight of a layer is used once per token: 2 FLOP each, 4.25 bits for packed ones.
    used = 0.0
    for layer in weights.layers:
        packed = layer.experts.gate_up_blocks.numel() + layer.experts.down_blocks.numel()
        used += 2 * packed * weights.slots / layer.experts.experts
        used += layer.qkv.numel() + layer.out.numel() + layer.router.numel()
    return StepResult(f"prefill of {tokens:,}", time, rate, 2 * used * rate / best.matrix)


def prefill(weights: StepWeights, ids: Int[Tensor, "token"]) -> Float[Tensor, "1 vocab"]:
    """The forward pass of one prompt, operation by operation; no cache is kept."""
    x, tokens = weights.embedding[ids], len(ids)
    cos, sin = weights.cos[:tokens], weights.sin[:tokens]
    kv = weights.kv_heads
    for layer in weights.layers:
        normed = rms_norm(x, layer.attn_norm, weights.eps)
        heads = linear(normed, layer.qkv, layer.qkv_bias).view(tokens, -1, weights.head_dim)
        q, k, v = heads.transpose(0, 1)[None].split((weights.heads, kv, kv), dim=1)
        q, k = (each * cos + each.roll(weights.head_dim // 2, dims=-1) * sin for each in (q, k))
        z, _ = attention(q, k, v, layer.sinks, window=layer.window)
        x = linear(z.transpose(1, 2).reshape(tokens, -1), layer.out, layer.out_bias, x)
        normed = rms_norm(x, layer.moe_norm, weights.eps)
        chosen, shares, _ = router(normed, layer.router, layer.router_bias, weights.slots)
        x = x + expert_mlp(
            normed, chosen, shares, layer.experts, alpha=weights.alpha, limit=weights.limit
        )
    return linear(rms_norm(x[-1:], weights.norm, weights.eps), weights.unembedding, None)
