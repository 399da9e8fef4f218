"""The decode plan on a GPU: a fixed list of launches over a model's weights and a loaded KV cache.

The launches are in `oss_kernels/device_step`. This module gives them a model's weights, copies the
KV cache of a prefill into their buffers, and reads the points that are recorded by default.

A plan has its own caches: one slot per token in layers that see every token, and a ring of the last
`window` tokens in the others. Rows do not share anything and have no padding.
"""

import torch
from jaxtyping import Bool, Int
from oss_kernels.device_step.plan import SPLITS, DevicePlan
from oss_kernels.device_step.weights import LayerWeights, StepWeights
from torch import Tensor

from oss_lab.engine.cache import KVCache
from oss_lab.engine.kernels import collect_expert_weights
from oss_lab.errors import LabError
from oss_lab.hooks.points import RANKS
from oss_lab.model.rope import rotation
from oss_lab.model.transformer import Block, Transformer


def collect_step_weights(model: Transformer, capacity: int) -> StepWeights:
    """The weights of a model with packed experts, for texts of up to `capacity` tokens."""
    config = model.config
    positions = torch.arange(capacity, device=model.device)[None]
    cos, sin = (each[0, 0] for each in rotation(config, positions, model.embedding.weight.dtype))
    blocks = [each for each in model.block if isinstance(each, Block)]
    return StepWeights(
        embedding=model.embedding.weight,
        layers=tuple(collect_layer(each, config.window(n)) for n, each in enumerate(blocks)),
        norm=model.norm.scale,
        unembedding=model.unembedding.weight,
        cos=cos.contiguous(),
        sin=sin.contiguous(),
        slots=config.experts_per_token,
        eps=config.rms_norm_eps,
        alpha=config.swiglu_alpha,
        limit=config.swiglu_limit,
    )


def collect_layer(block: Block, window: int | None) -> LayerWeights:
    attn, mlp = block.attn, block.mlp
    return LayerWeights(
        attn_norm=attn.norm.scale,
        qkv=attn.qkv.weight,
        qkv_bias=attn.qkv.bias,
        sinks=attn.sinks,
        out=attn.out.weight,
        out_bias=attn.out.bias,
        moe_norm=mlp.norm.scale,
        router=mlp.gate.weight,
        router_bias=mlp.gate.bias,
        experts=collect_expert_weights(mlp).contiguous(),
        window=window,
    )


def make_device_plan(
    model: Transformer,
    batch: int,
    capacity: int,
    *,
    record: bool = False,
    usable: Bool[Tensor, "vocab"] | None = None,
    splits: int = SPLITS,
) -> DevicePlan:
    """A plan for `batch` rows of up to `capacity` tokens, captured as a CUDA graph on a GPU.

    With `record`, every step also writes the points that are recorded by default.
    """
    weights = collect_step_weights(model, capacity)
    ranks = min(RANKS, model.config.vocab_size) if record else 0
    plan = DevicePlan(weights, batch, record=record, ranks=ranks, usable=usable, splits=splits)
    if model.device.type == "cuda":
        plan.capture()
    return plan


def load_cache(plan: DevicePlan, cache: KVCache, tokens: Int[Tensor, "batch"]) -> None:
    """Copy a KV cache into the plan. The next step reads `tokens`, one for each row.

    Raises:
        LabError: the cache has another number of rows, or leaves no room.
    """
    batch, capacity = len(plan.buffers.x), plan.weights.capacity
    if cache.batch != batch or cache.length >= capacity:
        raise LabError(
            f"the cache has {cache.batch} x {cache.length} (rows x tokens); this plan has {batch}"
            f" rows of up to {capacity} tokens"
        )
    padding = [0] * batch if cache.padding is None else cache.padding.tolist()
    for number, buffer in enumerate(plan.buffers.caches):
        window = plan.weights.layers[number].window
        first = 0 if window is None else max(0, cache.length - window)
        for row, padded in enumerate(padding):
            for begin, span in cache.layers[number].spans(max(first, padded), cache.length):
                own = span[:, min(row, span.shape[1] - 1)]  # one row may be shared by all
                slots = torch.arange(begin - padded, begin - padded + span.shape[3])
                slots = slots if window is None else slots % window
                buffer[:, row, :, slots.to(buffer.device)] = own
    cursor = plan.buffers.cursor
    cursor.positions.copy_(torch.tensor([cache.length - each for each in padding]))
    cursor.tokens.copy_(tokens)


def read_points(plan: DevicePlan) -> dict[tuple[str, int | None], Tensor]:
    """The default points of the last step, [batch ...], by name and layer; on the device.

    The plan must have been made with `record`.
    """
    points, sampled = plan.buffers.points, plan.buffers.sampled
    assert sampled.top_ids is not None
    assert sampled.top_logprobs is not None
    found: dict[tuple[str, int | None], Tensor] = {}
    for n, layer in enumerate(plan.weights.layers):
        found["attn.sink_mass", n] = (layer.sinks.float() - points.lse[n]).exp()
        found["moe.router_logits", n] = points.router_logits[n]
        found["moe.expert_ids", n] = points.expert_ids[n]
        found["moe.expert_weights", n] = points.expert_weights[n]
    found["out.top_ids", None] = sampled.top_ids
    found["out.top_logprobs", None] = sampled.top_logprobs
    return found
