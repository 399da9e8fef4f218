"""What transformers computes: its GptOss with eager attention, read by forward hooks.

`HOOK_PLACES` lists the points that are an input or output of a module. `DERIVED` lists those that
follow from other points, by a function of transformers or by arithmetic. `ABSENT` gives the reason
for the rest. transformers chooses its own experts, so it runs in float32, where two correct forward
passes choose the same experts. In bfloat16 they can differ at near-ties, and nothing after such a
difference is comparable.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.hooks.points import POINTS, RANKS
from oss_lab.proof.numpy_forward import Seen

Tensors = dict[tuple[str, int | None], Tensor]


@dataclass(frozen=True)
class HookPlace:
    """An input or output of a module. `part` is the index if that is a tuple."""

    module: str
    side: Literal["in", "out"] = "out"
    part: int = 0

    def read(self, inputs: tuple[Any, ...], output: Any) -> Tensor:
        both = {"in": inputs, "out": output if isinstance(output, tuple) else (output,)}
        return both[self.side][self.part]

    def __str__(self) -> str:
        part = f", part {self.part}" if self.part else ""
        return f"{self.side}put of {self.module or 'the layer'}{part}"


@dataclass(frozen=True)
class DerivedPoint:
    """How a point follows from others. The function takes (config, model, layer, points so far)."""

    how: str
    value: Callable[..., Tensor]


HOOK_PLACES = {
    "embed": HookPlace("model.embed_tokens"),
    "resid.pre": HookPlace("", "in"),
    "attn.norm": HookPlace("input_layernorm"),
    "attn.q": HookPlace("self_attn.q_proj"),
    "attn.k": HookPlace("self_attn.k_proj"),
    "attn.v": HookPlace("self_attn.v_proj"),
    "attn.pattern": HookPlace("self_attn", part=1),
    "attn.z": HookPlace("self_attn.o_proj", "in"),
    "attn.out": HookPlace("self_attn.o_proj"),
    "resid.mid": HookPlace("post_attention_layernorm", "in"),
    "moe.norm": HookPlace("post_attention_layernorm"),
    "moe.router_logits": HookPlace("mlp.router"),
    "moe.expert_weights": HookPlace("mlp.router", part=1),
    "moe.expert_ids": HookPlace("mlp.router", part=2),
    "moe.out": HookPlace("mlp"),
    "resid.post": HookPlace(""),
    "out.norm": HookPlace("model.norm"),
    "out.logits": HookPlace("lm_head"),
}
"""Module paths in the model, or in a layer if the point belongs to a layer."""

INSIDE = "all experts of a layer are one module, which does not return it"
ABSENT = {
    "attn.scores": "local to eager_attention_forward; the pattern rounds some of it to 0",
    "attn.lse": "not computed by eager_attention_forward; the sink's mass is too small to infer it",
    "moe.gate": INSIDE,
    "moe.up": INSIDE,
    "moe.act": INSIDE,
}


@torch.inference_mode()
def transformers_forward(config: ModelConfig, model: Any, tokens: Sequence[int]) -> Seen:
    """{(point, layer): value [seq, ...]} of every point that is not in `ABSENT`.

    Args:
        model: from `oss_lab.proof.transformers_model`, in float32.
    """
    seen: Tensors = {}
    with install_hooks(config, model, seen, len(tokens)):
        model(torch.tensor([list(tokens)]), use_cache=False)
    for point, following in DERIVED.items():
        for layer in range(config.num_hidden_layers) if POINTS[point].is_per_layer else [None]:
            seen[point, layer] = following.value(config, model, layer, seen)
    return {key: as_numpy(x) for key, x in seen.items()}


def as_numpy(x: Tensor) -> np.ndarray:
    return x.double().numpy() if x.is_floating_point() else x.numpy().astype(np.int64)


@contextmanager
def install_hooks(config: ModelConfig, model: Any, seen: Tensors, seq: int) -> Iterator[None]:
    """Hook every place, and store the values that pass in `seen`, in the shape of a trace."""
    handles = []
    for point, place in HOOK_PLACES.items():
        layered = POINTS[point].is_per_layer
        for n in range(config.num_hidden_layers) if layered else [None]:
            module = (model if n is None else model.model.layers[n]).get_submodule(place.module)

            def hook(_: Any, inputs: Any, output: Any, at=(point, n), place=place) -> None:
                seen[at] = to_trace_shape(config, at[0], place.read(inputs, output), seq)

            handles.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for each in handles:
            each.remove()


def to_trace_shape(config: ModelConfig, point: str, x: Tensor, seq: int) -> Tensor:
    """Reshape a module's value to a trace's [seq, ...].

    Modules have the heads side by side in one axis, or before the tokens.
    """
    if "key" in POINTS[point].axes:
        return x[0].transpose(0, 1)
    return x.reshape([POINTS[point].size(axis, config, seq) for axis in POINTS[point].axes])


def rotate(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
    """Queries and keys rotated by transformers' rotary_emb and apply_rotary_pos_emb."""
    from transformers.models.gpt_oss.modeling_gpt_oss import apply_rotary_pos_emb

    q, k = seen["attn.q", layer][None], seen["attn.k", layer][None]
    cos, sin = model.model.rotary_emb(q, torch.arange(q.shape[1])[None])
    q, k = apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2)
    return q[0], k[0]


def sink(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    return model.model.layers[layer].self_attn.sinks


def sink_mass(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """One minus the sum of the pattern, which transformers returns without the sink's column."""
    return 1 - seen["attn.pattern", layer].double().sum(-1)


def head_out(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """Each head's z multiplied by its columns of o_proj."""
    z, out = seen["attn.z", layer], model.model.layers[layer].self_attn.o_proj.weight
    return torch.einsum("shd,nhd->shn", z, out.view(len(out), *z.shape[1:]))


def expert_out(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """The experts run again for each slot alone, with a weight of one."""
    normed, ids = seen["moe.norm", layer], seen["moe.expert_ids", layer]
    experts, one = model.model.layers[layer].mlp.experts, torch.ones(len(ids), 1)
    return torch.stack([experts(normed, slot[:, None], one) for slot in ids.unbind(1)], dim=1)


def margin(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    falling = seen["moe.router_logits", layer].sort(descending=True).values
    return falling[:, config.experts_per_token - 1] - falling[:, config.experts_per_token]


def entropy(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    return torch.distributions.Categorical(logits=seen["moe.router_logits", layer]).entropy()


def layer_logits(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """The final norm and lm_head applied to the residual stream after a layer."""
    return model.lm_head(model.model.norm(seen["resid.post", layer]))


def top_logprobs(config: ModelConfig, model: Any, layer: None, seen: Tensors) -> Any:
    return seen["out.logits", None].log_softmax(-1).topk(min(RANKS, config.vocab_size))


DERIVED = {
    "attn.q_rot": DerivedPoint("apply_rotary_pos_emb of attn.q", lambda *args: rotate(*args)[0]),
    "attn.k_rot": DerivedPoint("apply_rotary_pos_emb of attn.k", lambda *args: rotate(*args)[1]),
    "attn.sink": DerivedPoint("parameter self_attn.sinks", sink),
    "attn.sink_mass": DerivedPoint("one minus the sum of attn.pattern", sink_mass),
    "attn.head_out": DerivedPoint("self_attn.o_proj, a head's columns, of attn.z", head_out),
    "moe.margin": DerivedPoint("from moe.router_logits", margin),
    "moe.entropy": DerivedPoint("from moe.router_logits", entropy),
    "moe.expert_out": DerivedPoint("mlp.experts of moe.norm, run again for each slot", expert_out),
    "out.layer_logits": DerivedPoint("model.norm and lm_head of resid.post", layer_logits),
    "out.top_ids": DerivedPoint("from out.logits", lambda *args: top_logprobs(*args).indices),
    "out.top_logprobs": DerivedPoint("from out.logits", lambda *args: top_logprobs(*args).values),
}
"""In an order in which every point comes after those it follows from."""


def describe_location(point: str) -> str:
    """Where transformers has a point, or why it does not."""
    if point in ABSENT:
        return f"not there: {ABSENT[point]}"
    return DERIVED[point].how if point in DERIVED else str(HOOK_PLACES[point])
