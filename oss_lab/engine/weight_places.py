"""Where a model keeps the weights that a prepared decode step reads, and whether they changed.

A prepared step has the addresses of the weights. You may replace a weight, a module or an option
at any time, so a plan asks before every step (`WeightPlaces.have_changed`). That takes
microseconds, since its loops over all places are calls of `map`, which run in C.
"""

from operator import attrgetter, is_not
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

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
find_constants = attrgetter("slots", "alpha", "limit")
find_eps = attrgetter("eps")
requires_grad = attrgetter("requires_grad")


class Options(NamedTuple):
    """The numbers that a step computes with.

    Attributes:
        slots: experts per token.
        alpha, limit: of SwiGLU.
        eps: of the norms.
    """

    slots: int
    alpha: float
    limit: float
    eps: float


class Weights(NamedTuple):
    """The weights of a model, by their names in OUTSIDE and IN_LAYER."""

    outer: dict[str, Tensor]
    layers: list[dict[str, Tensor]]
    options: Options


class WeightPlaces:
    """Finds the weights of `model`, and notices when they are replaced or moved."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self._made_for: Any = None
        self._find_places()

    def have_changed(self) -> bool:
        """Whether a weight or an option is another one than at the last call; at first, True.

        A weight that is changed in place counts as the same.
        """
        modules = list(map(dict.get, self._parents, self._children))
        weights = map(dict.get, self._owners, self._names)
        # A missing weight may return to another place.
        if modules != self._modules or self._is_missing or any(map(is_not, weights, self._weights)):
            self._find_places()
        now = (
            list(map(Tensor.data_ptr, self._present)),
            list(map(find_constants, self._mixtures)),
            list(map(find_eps, self._norms)),
        )
        changed, self._made_for = now != self._made_for, now
        return changed

    def need_gradients(self) -> bool:
        """Whether gradients are needed, which no kernel computes."""
        return torch.is_grad_enabled() and any(map(requires_grad, self._present))

    def collect(self) -> Weights | None:
        """The weights that are there now.

        None if one is missing (for example, torch.prune computes it), or if the layers do not have
        the same options.
        """
        constants = set(map(find_constants, self._mixtures))
        eps = set(map(find_eps, self._norms))
        if self._is_missing or len(constants) > 1 or len(eps) > 1:
            return None
        weights = iter(cast("list[Tensor]", self._weights))
        outer = dict(zip(OUTSIDE, weights, strict=False))
        layers = [dict(zip(IN_LAYER, weights, strict=False)) for _ in self._mixtures]
        return Weights(outer, layers, Options(*constants.pop(), eps.pop()))

    def _find_places(self) -> None:
        """Find where the weights are, and remember the modules that lead there."""
        model = self.model
        links = [(each._modules, name) for each in model.modules() for name in each._modules]
        self._parents, self._children = [owner for owner, _ in links], [name for _, name in links]
        self._modules = [owner[name] for owner, name in links]
        blocks = [cast(Block, block) for block in model.block]
        self._mixtures = [block.mlp for block in blocks]
        norms = [norm for block in blocks for norm in (block.attn.norm, block.mlp.norm)]
        self._norms = [model.norm, *norms]
        places = [find_place(model, path) for path in OUTSIDE.values()]
        places += [find_place(block, path) for block in blocks for path in IN_LAYER.values()]
        self._owners, self._names = [owner for owner, _ in places], [name for _, name in places]
        self._weights = [owner.get(name) for owner, name in places]
        self._present = [weight for weight in self._weights if weight is not None]
        self._is_missing = len(self._present) < len(self._weights)


def find_place(module: nn.Module, path: str) -> tuple[dict[str, Any], str]:
    """The dictionary that has the parameter or buffer at this path, and its name there."""
    owner, _, name = path.rpartition(".")
    found = module.get_submodule(owner)
    return (found._parameters if name in found._parameters else found._buffers), name
