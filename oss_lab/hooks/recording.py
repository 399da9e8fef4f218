"""Records what a request selects, over any number of forward passes of its sequence.

A selected point that is never reached is an error, and so is a NaN. An activation that is zero
everywhere causes a warning.
"""

import warnings
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.derived import DERIVED
from oss_lab.hooks.points import HIDDEN_KEY_VALUES, POINTS, Point, find_forward_points
from oss_lab.hooks.selection import Selection, name_tensor
from oss_lab.model import Transformer

Key = tuple[str, int | None]
INFINITE = {"attn.scores": -torch.inf, "moe.router_logits": -torch.inf, "moe.margin": torch.inf}
"""Points where infinity is valid: a hidden key, a banned expert, or no expert left to choose."""


class AllZeroWarning(UserWarning):
    """An activation is zero at every token: what computes it is broken or was ablated."""


class Recording:
    """Records a selection of one sequence; `tensors` returns the result."""

    def __init__(self, model: Transformer, selection: Selection) -> None:
        selection.check(model.config)
        self.model, self.selection = model, selection
        self.points: Collection[str] = find_forward_points(selection.points)
        self._kept: dict[Key, list[Tensor]] = {}
        self._new: dict[Key, Tensor] = {}  # from the current forward pass
        self._sources: dict[Key, Tensor] = {}
        # Points of all layers at once [layer ...], one tensor per forward pass of one token.
        self._kept_layers: dict[str, list[Tensor]] = {}
        self._new_layers: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Drop what an interrupted forward pass left."""
        self._new, self._sources, self._new_layers = {}, {}, {}

    def add(self, name: str, layer: int | None, x: Tensor, positions: Int[Tensor, "seq"]) -> None:
        """Record the selected part of x [1 ...], a point of the tokens at these positions.

        x has the model's layout. Derived points are computed once their last source arrives.
        """
        chosen = self.selection.layers
        if name not in self.points or (layer is not None and chosen and layer not in chosen):
            return
        self._sources[name, layer] = x.detach()
        for point in map(POINTS.__getitem__, self.selection.points):
            sources = point.sources or (point.name,)
            if name == sources[-1]:
                tensors = [self._sources[source, layer] for source in sources]
                self._new[point.name, layer] = self._select(point, layer, tensors, positions)

    def add_layers(self, values: Mapping[str, Tensor]) -> None:
        """Record selected points of one token in all layers [layer ...], with all their heads."""
        computed = self.model.embedding.weight.dtype
        with torch.inference_mode(False), torch.no_grad():
            for name, x in values.items():
                self._new_layers[name] = x.to(POINTS[name].trace_dtype(computed), copy=True)

    def _select(
        self, point: Point, layer: int | None, sources: list[Tensor], positions: Int[Tensor, "seq"]
    ) -> Tensor:
        """Compute a point from its sources, and return its selected heads and tokens [seq ...]."""
        derive = DERIVED.get(point.name)
        x = (derive(self.model, layer, *sources) if derive else sources[0])[0]
        heads = self.selection.heads_of(point, self.model.config)
        x = x if heads is None else x[heads]
        if "seq" in point.axes:
            x = x.transpose(0, 1) if point.has_head_axis else x
            if self.selection.positions is not None:
                chosen = torch.tensor(self.selection.positions, device=positions.device)
                x = x[torch.isin(positions[len(positions) - len(x) :], chosen)]
        if "key" in point.axes:  # a sliding layer has only its last keys
            hidden = int(positions[-1]) + 1 - x.shape[-1]
            x = F.pad(x, (hidden, 0), value=HIDDEN_KEY_VALUES[point.name])
        # Leave inference mode, since autograd does not accept its tensors.
        with torch.inference_mode(False), torch.no_grad():
            return x.to(point.trace_dtype(self.model.embedding.weight.dtype), copy=True)

    def commit(self) -> None:
        """Keep what this forward pass recorded; called once it has succeeded."""
        if any(name in self._kept_layers for name, _ in self._new):
            self._divide_layers()  # these tokens come first
        for key, x in self._new.items():
            if "seq" in POINTS[key[0]].axes:
                self._kept.setdefault(key, []).append(x)
            else:
                self._kept[key] = [x]
        for name, x in self._new_layers.items():
            self._kept_layers.setdefault(name, []).append(x)
        self.begin()

    def _divide_layers(self) -> None:
        """Divide what `add_layers` recorded by layer."""
        for name, rows in self._kept_layers.items():
            by_layer = torch.stack(rows, 1)
            for layer in self.selection.layers_of(POINTS[name], self.model.config):
                self._kept.setdefault((name, layer), []).append(by_layer[layer])
        self._kept_layers = {}

    def tensors(self) -> dict[Key, Tensor]:
        """Everything that was recorded, on the CPU: [seq, ...] for each point and layer.

        Raises:
            LabError: a point was never reached, or contains NaN or infinity.
        """
        self._divide_layers()
        kept: dict[Key, Tensor] = {}
        for name in self.selection.points:
            for layer in self.selection.layers_of(POINTS[name], self.model.config):
                if (name, layer) not in self._kept:
                    raise LabError(f"{name_tensor(name, layer)} was selected but never reached")
                parts = self._kept[name, layer]
                if "key" in POINTS[name].axes:
                    keys = max(part.shape[-1] for part in parts)
                    parts = [
                        F.pad(part, (0, keys - part.shape[-1]), value=HIDDEN_KEY_VALUES[name])
                        for part in parts
                    ]
                kept[name, layer] = check_values(name, layer, concatenate(parts).cpu())
        return kept


def concatenate(parts: list[Tensor]) -> Tensor:
    """Concatenate along the first axis; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def check_values(name: str, layer: int | None, x: Tensor) -> Tensor:
    """Return x; warn if it is an activation that is zero everywhere.

    Raises:
        LabError: it contains NaN, or infinity at a point where that is not valid.
    """
    if not x.numel():
        return x
    if name in INFINITE:
        lowest, highest = x.masked_fill(x == INFINITE[name], 0).aminmax()
    else:
        lowest, highest = x.aminmax()
    if not (lowest.isfinite() and highest.isfinite()):  # with a NaN, both are NaN
        raise LabError(
            f"{name_tensor(name, layer)} contains NaN or infinity; the weights or an intervention"
            " caused it"
        )
    if POINTS[name].kind == "activation" and lowest == highest == 0:
        warnings.warn(
            f"{name_tensor(name, layer)} is zero everywhere; unless you intended this, the weights"
            " or an intervention caused it",
            AllZeroWarning,
            stacklevel=2,
        )
    return x
