"""The decode plan of a GPU: a fixed list of launches over the weights of a model.

The launches are in `oss_kernels/device_step`. This module gives them a model's weights, and reads
the points that are recorded by default. `device_decode.py` runs the plans for an engine, and
`device_cache.py` copies keys into a plan and back.

A plan has its own caches: one slot per token in layers that see every token, and a ring of the last
`window` tokens in the others. Rows do not share anything and have no padding. Nothing here has run
on a GPU yet; the tests run it in Triton's interpreter.
"""

from dataclasses import fields

import torch
from jaxtyping import Bool, Shaped
from oss_kernels.checks import FLOATS
from oss_kernels.device_step.plan import SPLITS, DevicePlan
from oss_kernels.device_step.weights import LayerWeights, StepWeights
from oss_kernels.experts.weights import ExpertWeights
from torch import Tensor

from oss_lab.engine.weight_places import WeightPlaces, Weights
from oss_lab.hooks.derived import margin
from oss_lab.hooks.points import RANKS
from oss_lab.model.rope import rotation
from oss_lab.model.transformer import Transformer

HEAD_SIZES = (16, 32, 64, 128)  # as in `oss_kernels.attention`


def can_run(weights: Weights | None, head_dim: int) -> bool:
    """Whether the kernels can read these weights where they are."""
    if weights is None or head_dim not in HEAD_SIZES:
        return False
    like = weights.outer["embedding"]
    named = [each for part in (weights.outer, *weights.layers) for each in part.items()]
    return like.dtype in FLOATS and all(
        weight.dtype == (torch.uint8 if name.endswith(("blocks", "scales")) else like.dtype)
        and weight.device == like.device
        and weight.is_contiguous()
        for name, weight in named
    )


def collect_step_weights(model: Transformer, capacity: int) -> StepWeights:
    """The weights of a model that `can_run` allows, for texts of up to `capacity` tokens."""
    config, weights = model.config, WeightPlaces(model).collect()
    assert weights is not None
    positions = torch.arange(capacity, device=model.device)[None]
    cos, sin = (each[0, 0] for each in rotation(config, positions, model.embedding.weight.dtype))
    return StepWeights(
        layers=tuple(make_layer(each, config.window(n)) for n, each in enumerate(weights.layers)),
        cos=cos.contiguous(),
        sin=sin.contiguous(),
        **weights.outer,
        **weights.options._asdict(),
    )


def make_layer(weights: dict[str, Tensor], window: int | None) -> LayerWeights:
    """A layer of a plan, from its weights by their names in `weight_places.IN_LAYER`."""
    names = [field.name for field in fields(ExpertWeights)]
    experts = ExpertWeights(**{name: weights[name] for name in names})
    dense = {name: weight for name, weight in weights.items() if name not in names}
    return LayerWeights(experts=experts, window=window, **dense)


def make_device_plan(
    model: Transformer,
    batch: int,
    capacity: int,
    *,
    record: bool = False,
    sample: bool = True,
    usable: Bool[Tensor, "vocab"] | None = None,
    splits: int = SPLITS,
) -> DevicePlan:
    """A plan for `batch` rows of up to `capacity` tokens, captured as a CUDA graph on a GPU.

    With `record`, every step also writes the points that are recorded by default. Without `sample`,
    it ends with the logits.
    """
    weights = collect_step_weights(model, capacity)
    ranks = min(RANKS, model.config.vocab_size) if record and sample else 0
    plan = DevicePlan(
        weights, batch, record=record, sample=sample, ranks=ranks, usable=usable, splits=splits
    )
    if model.device.type == "cuda":
        plan.capture()
    return plan


def read_points(
    model: Transformer, plan: DevicePlan
) -> dict[str, Shaped[Tensor, "layer batch ..."]]:
    """The default points of the last step in all layers, on the device.

    The plan must have been made with `record`. Some are its buffers, which the next step changes.
    """
    points, layers = plan.buffers.points, plan.weights.layers
    sinks = torch.stack([layer.sinks for layer in layers]).float()
    return {
        "attn.sink_mass": (sinks[:, None] - points.lse).exp(),
        "moe.router_logits": points.router_logits,
        "moe.expert_ids": points.expert_ids,
        "moe.expert_weights": points.expert_weights,
        "moe.margin": margin(model, 0, points.router_logits),
    }
