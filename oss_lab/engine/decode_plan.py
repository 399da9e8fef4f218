"""The decode step on a CPU as a fixed plan: one compiled call per token.

Everything that does not change from token to token is prepared once: the addresses of the weights,
the buffers, the rotations. A step then only passes the token, its position and where the cache is.
It serves the common case: one sequence in one unforked cache, with nothing recorded or only points
that the step stores. `DecodePlan.decode` returns None for any other case, which `KernelEngine`
computes operation by operation.
"""

from threading import Lock
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from oss_kernels.decode_step.plan import DecodeStep, StepOptions, find_obstacle
from torch import Tensor, nn

from oss_lab.engine.cache import KVCache
from oss_lab.hooks.forward import ForwardHooks
from oss_lab.hooks.recording import Recording
from oss_lab.model.hook import Hooks, no_hooks
from oss_lab.model.past import Past
from oss_lab.model.rope import rotation
from oss_lab.model.transformer import Block, Transformer

IN_LAYER = {
    "attn_norm": "attn.norm.scale",
    "qkv": "attn.qkv.weight",
    "qkv_bias": "attn.qkv.bias",
    "sinks": "attn.sinks",
    "out": "attn.out.weight",
    "out_bias": "attn.out.bias",
    "moe_norm": "mlp.norm.scale",
    "router": "mlp.gate.weight",
    "router_bias": "mlp.gate.bias",
    "gate_up_blocks": "mlp.mlp1_weight.blocks",
    "gate_up_scales": "mlp.mlp1_weight.scales",
    "gate_up_bias": "mlp.mlp1_bias",
    "down_blocks": "mlp.mlp2_weight.blocks",
    "down_scales": "mlp.mlp2_weight.scales",
    "down_bias": "mlp.mlp2_bias",
}
OUTSIDE = {
    "embedding": "embedding.weight",
    "norm": "norm.scale",
    "unembedding": "unembedding.weight",
}
RESULTS = {
    "attn.sink_mass": "sink_masses",
    "moe.router_logits": "router_logits",
    "moe.expert_ids": "expert_ids",
    "moe.expert_weights": "expert_weights",
    "moe.margin": "margins",
}
"""Points that a step stores for all layers, with their attributes of `DecodeStep`."""
RECORDABLE = frozenset({*RESULTS, "out.logits", "out.top_ids", "out.top_logprobs"})
POSITIONS = 1024  # rotations are computed for at least this many positions


class WeightPlace:
    """Where a module keeps a weight. A weight that you replace is found at the same place."""

    def __init__(self, module: nn.Module, path: str) -> None:
        owner, _, self.name = path.rpartition(".")
        found = module.get_submodule(owner)
        self.owner: dict[str, Any] = found._buffers
        if self.name in found._parameters:
            self.owner = found._parameters

    def find(self) -> Tensor:
        """The weight that is there now."""
        return self.owner[self.name]


class DecodePlan:
    """The compiled decode step of a model."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self._step: DecodeStep | None = None
        self._lock = Lock()  # threads may share an engine, and so the step's buffers
        self._find_places()

    def _find_places(self) -> None:
        """Find where the weights are, and remember the modules that lead there."""
        model = self.model
        self._links = [(each._modules, name) for each in model.modules() for name in each._modules]
        self._modules = [owner[name] for owner, name in self._links]
        blocks = [cast(Block, block) for block in model.block]
        self._mixtures = [(each.mlp, each.attn.norm, each.mlp.norm, model.norm) for each in blocks]
        self._layers = [
            {name: WeightPlace(block, path) for name, path in IN_LAYER.items()}
            for block in model.block
        ]
        self._outer = {name: WeightPlace(model, path) for name, path in OUTSIDE.items()}
        places = [*self._outer.values(), *(p for each in self._layers for p in each.values())]
        self._places = [(place.owner, place.name) for place in places]
        self._made_for: tuple[Any, ...] = ()

    def decode(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None,
        last: int | None,
        hooks: Hooks,
    ) -> Float[Tensor, "1 1 vocab"] | None:
        """The logits after one token, as `KernelEngine.forward`; None if this is another case."""
        if tokens.numel() != 1 or not isinstance(past, KVCache) or last == 0:
            return None
        recording = find_recording(hooks)
        if recording is None and hooks is not no_hooks:
            return None
        if (layers := past.make_room()) is None:
            return None
        token = int(tokens)
        with self._lock:
            step = self._find_step()
            if (
                step is None
                or self._needs_gradients()
                or not 0 <= token < self.model.config.vocab_size
            ):
                return None
            tails = cast("list[Tensor]", [each.tail for each in layers])
            firsts = [each.first for each in layers]
            if not step.can_read(tails, firsts, past.length):  # a cache of another model
                return None
            if past.length >= step.positions:
                self._extend_rotation(step, past.length)
            logits = step(token, past.length, tails, firsts)
            if recording is not None:
                names = RESULTS.keys() & recording.selection.points
                recording.add_layers({name: getattr(step, RESULTS[name]) for name in names})
        if recording is not None:
            recording.add("out.logits", None, logits, torch.tensor([past.length]))
        past.advance(1)
        return logits

    def _needs_gradients(self) -> bool:
        """Whether the kernels must refuse, since they compute no gradients."""
        return torch.is_grad_enabled() and any(
            owner[name].requires_grad for owner, name in self._places
        )

    def _find_step(self) -> DecodeStep | None:
        """The compiled step, made again if a module, a weight or an option has changed."""
        is_moved = any(name not in owner for owner, name in self._places)
        if is_moved or [owner.get(name) for owner, name in self._links] != self._modules:
            self._find_places()
        weights = [owner.get(name) for owner, name in self._places]
        if any(weight is None for weight in weights):  # for example, it is computed by torch.prune
            return None
        addresses = tuple(cast(Tensor, weight).data_ptr() for weight in weights)
        options = {
            (mlp.slots, mlp.alpha, mlp.limit, norm.eps)
            for mlp, *norms in self._mixtures
            for norm in norms
        }
        if len(options) > 1:  # a step has the same in all layers
            return None
        if (addresses, options) != self._made_for:
            (option,) = options
            self._step, self._made_for = self._make_step(*option), (addresses, options)
        return self._step

    def _make_step(self, slots: int, alpha: float, limit: float, eps: float) -> DecodeStep | None:
        config = self.model.config
        layers = [{name: place.find() for name, place in layer.items()} for layer in self._layers]
        outer = {name: place.find() for name, place in self._outer.items()}
        if find_obstacle(layers, outer, config.head_dim):
            return None
        windows = [config.window(n) for n in range(len(layers))]
        options = StepOptions(windows, config.head_dim, slots, eps, alpha, limit)
        return DecodeStep(layers, outer, options)

    def _extend_rotation(self, step: DecodeStep, position: int) -> None:
        """Compute the rotations up to twice this position, but not beyond the context."""
        most = min(max(POSITIONS, 2 * position), self.model.config.max_context_length)
        positions = torch.arange(max(most, position + 1))[None]
        cos, sin = rotation(self.model.config, positions, step.dtype)
        step.set_rotation(cos[0, 0], sin[0, 0])


def find_recording(hooks: Hooks) -> Recording | None:
    """The recording, if the hooks only record one row, and only what a step stores."""
    if not isinstance(hooks, ForwardHooks) or (found := hooks.find_only_recording()) is None:
        return None
    selection = found.selection
    is_whole = selection.heads is None and selection.positions is None
    return found if is_whole and RECORDABLE.issuperset(selection.points) else None
