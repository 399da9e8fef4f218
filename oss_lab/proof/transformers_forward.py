"""What transformers computes: its GptOss with eager attention, asked by forward hooks.

`PLACES` says where a point is handed from module to module, `FOLLOWING` how one follows from those
by a step of transformers' or by arithmetic, `ABSENT` why there is none. The forward is its own from
end to end: it takes nobody's choice of experts. So it is asked in float32, where two right forwards
choose alike; in bfloat16 they part at near-ties, and nothing behind can be compared.
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
class Place:
    """What goes into or comes out of a module; `part` of it where that is a tuple."""

    module: str
    side: Literal["in", "out"] = "out"
    part: int = 0

    def shown(self, inputs: tuple[Any, ...], output: Any) -> Tensor:
        both = {"in": inputs, "out": output if isinstance(output, tuple) else (output,)}
        return both[self.side][self.part]

    def __str__(self) -> str:
        part = f", part {self.part}" if self.part else ""
        return f"{self.side}put of {self.module or 'the layer'}{part}"


@dataclass(frozen=True)
class Following:
    """How a point follows from others; the function takes (config, model, layer, what is seen)."""

    how: str
    value: Callable[..., Tensor]


PLACES = {
    "embed": Place("model.embed_tokens"),
    "resid.pre": Place("", "in"),
    "attn.norm": Place("input_layernorm"),
    "attn.q": Place("self_attn.q_proj"),
    "attn.k": Place("self_attn.k_proj"),
    "attn.v": Place("self_attn.v_proj"),
    "attn.pattern": Place("self_attn", part=1),
    "attn.z": Place("self_attn.o_proj", "in"),
    "attn.out": Place("self_attn.o_proj"),
    "resid.mid": Place("post_attention_layernorm", "in"),
    "moe.norm": Place("post_attention_layernorm"),
    "moe.router_logits": Place("mlp.router"),
    "moe.expert_weights": Place("mlp.router", part=1),
    "moe.expert_ids": Place("mlp.router", part=2),
    "moe.out": Place("mlp"),
    "resid.post": Place(""),
    "out.norm": Place("model.norm"),
    "out.logits": Place("lm_head"),
}
"""Modules of the whole model, or of a layer where the point is one of a layer."""

INSIDE = "no module hands it on: the experts of a layer are one"
ABSENT = {
    "attn.scores": "eager_attention_forward keeps it, and some of the pattern is rounded to 0",
    "attn.lse": "eager_attention_forward never has it, and the sink's mass is too small to tell it",
    "moe.gate": INSIDE,
    "moe.up": INSIDE,
    "moe.act": INSIDE,
}


@torch.inference_mode()
def transformers_forward(config: ModelConfig, model: Any, tokens: Sequence[int]) -> Seen:
    """{(point, layer): value [seq, ...]} of every point that is not in `ABSENT`.

    Args:
        model: of `oss_lab.proof.transformers_model`, in float32.
    """
    seen: Tensors = {}
    with hooks(config, model, seen, len(tokens)):
        model(torch.tensor([list(tokens)]), use_cache=False)
    for point, following in FOLLOWING.items():
        for layer in range(config.num_hidden_layers) if POINTS[point].layered else [None]:
            seen[point, layer] = following.value(config, model, layer, seen)
    return {key: as_numpy(x) for key, x in seen.items()}


def as_numpy(x: Tensor) -> np.ndarray:
    return x.double().numpy() if x.is_floating_point() else x.numpy().astype(np.int64)


@contextmanager
def hooks(config: ModelConfig, model: Any, seen: Tensors, seq: int) -> Iterator[None]:
    """Forward hooks at every place, which put what goes by into `seen` in a trace's shape."""
    held = []
    for point, place in PLACES.items():
        layered = POINTS[point].layered
        for n in range(config.num_hidden_layers) if layered else [None]:
            module = (model if n is None else model.model.layers[n]).get_submodule(place.module)

            def hook(_: Any, inputs: Any, output: Any, at=(point, n), place=place) -> None:
                seen[at] = in_trace(config, at[0], place.shown(inputs, output), seq)

            held.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for each in held:
            each.remove()


def in_trace(config: ModelConfig, point: str, x: Tensor, seq: int) -> Tensor:
    """[seq, ...] as a trace has it, from what a module has: heads side by side, or first."""
    if "key" in POINTS[point].axes:
        return x[0].transpose(0, 1)
    return x.reshape([POINTS[point].size(axis, config, seq) for axis in POINTS[point].axes])


def rotated(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
    """Queries and keys by transformers' rotary_emb and apply_rotary_pos_emb."""
    from transformers.models.gpt_oss.modeling_gpt_oss import apply_rotary_pos_emb

    q, k = seen["attn.q", layer][None], seen["attn.k", layer][None]
    cos, sin = model.model.rotary_emb(q, torch.arange(q.shape[1])[None])
    q, k = apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2)
    return q[0], k[0]


def sink(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    return model.model.layers[layer].self_attn.sinks


def sink_mass(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """What the pattern, which it returns without the sink's column, leaves of one."""
    return 1 - seen["attn.pattern", layer].double().sum(-1)


def head_out(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """Each head through its columns of o_proj."""
    z, out = seen["attn.z", layer], model.model.layers[layer].self_attn.o_proj.weight
    return torch.einsum("shd,nhd->shn", z, out.view(len(out), *z.shape[1:]))


def expert_out(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """Its experts asked again for each slot alone, with a weight of one."""
    normed, ids = seen["moe.norm", layer], seen["moe.expert_ids", layer]
    experts, one = model.model.layers[layer].mlp.experts, torch.ones(len(ids), 1)
    return torch.stack([experts(normed, slot[:, None], one) for slot in ids.unbind(1)], dim=1)


def margin(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    falling = seen["moe.router_logits", layer].sort(descending=True).values
    return falling[:, config.experts_per_token - 1] - falling[:, config.experts_per_token]


def entropy(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    return torch.distributions.Categorical(logits=seen["moe.router_logits", layer]).entropy()


def layer_logits(config: ModelConfig, model: Any, layer: int, seen: Tensors) -> Tensor:
    """Its last norm and lm_head on an earlier residual stream."""
    return model.lm_head(model.model.norm(seen["resid.post", layer]))


def best(config: ModelConfig, model: Any, layer: None, seen: Tensors) -> Any:
    return seen["out.logits", None].log_softmax(-1).topk(min(RANKS, config.vocab_size))


FOLLOWING = {
    "attn.q_rot": Following("apply_rotary_pos_emb of attn.q", lambda *of: rotated(*of)[0]),
    "attn.k_rot": Following("apply_rotary_pos_emb of attn.k", lambda *of: rotated(*of)[1]),
    "attn.sink": Following("parameter self_attn.sinks", sink),
    "attn.sink_mass": Following("one less the sum of attn.pattern", sink_mass),
    "attn.head_out": Following("self_attn.o_proj, the columns of a head, of attn.z", head_out),
    "moe.margin": Following("from moe.router_logits", margin),
    "moe.entropy": Following("from moe.router_logits", entropy),
    "moe.expert_out": Following("mlp.experts of moe.norm, asked again slot by slot", expert_out),
    "out.layer_logits": Following("model.norm and lm_head of resid.post", layer_logits),
    "out.top_ids": Following("from out.logits", lambda *of: best(*of).indices),
    "out.top_logprobs": Following("from out.logits", lambda *of: best(*of).values),
}
"""In an order in which each finds what it follows from."""


def whereabouts(point: str) -> str:
    """Where a point is in transformers, or why it is not there."""
    if point in ABSENT:
        return f"not there: {ABSENT[point]}"
    return FOLLOWING[point].how if point in FOLLOWING else str(PLACES[point])
