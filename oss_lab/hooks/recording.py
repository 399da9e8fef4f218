"""Recording: keep what a request selects, over any number of forwards of its sequence.

A selected value that never arrives is an error, as is a value with a NaN. A value that is zero
everywhere causes a warning.
"""

import warnings
from collections.abc import Collection

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.derived import DERIVED
from oss_lab.hooks.points import POINTS, UNSEEN, Point, lines_of
from oss_lab.hooks.selection import Selection, where
from oss_lab.model import Transformer

Key = tuple[str, int | None]
INFINITE = {"attn.scores": -torch.inf, "moe.router_logits": -torch.inf, "moe.margin": torch.inf}
"""Infinities that mean something: a hidden key, a banned expert, no expert that was not chosen."""


class AllZeroWarning(UserWarning):
    """An activation is zero at every token: what fills it is broken or was removed."""


class Recording:
    """Keeps a selection of one sequence; `tensors` gives what was kept."""

    def __init__(self, model: Transformer, selection: Selection) -> None:
        selection.check(model.config)
        self.model, self.selection = model, selection
        self.points: Collection[str] = lines_of(selection.points)
        self._kept: dict[Key, list[Tensor]] = {}
        self._new: dict[Key, Tensor] = {}  # of the forward that is running
        self._handed: dict[Key, Tensor] = {}

    def begin(self) -> None:
        """Forget what an interrupted forward left."""
        self._new, self._handed = {}, {}

    def take(self, name: str, layer: int | None, x: Tensor, positions: Int[Tensor, "seq"]) -> None:
        """Keep what is selected of a line of the forward: x [1 ...] as the forward has it, of the
        tokens at these positions."""
        chosen = self.selection.layers
        if name not in self.points or (layer is not None and chosen and layer not in chosen):
            return
        self._handed[name, layer] = x.detach()
        for point in map(POINTS.__getitem__, self.selection.points):
            sources = point.sources or (point.name,)
            if name == sources[-1]:
                handed = [self._handed[source, layer] for source in sources]
                self._new[point.name, layer] = self._select(point, layer, handed, positions)

    def _select(
        self, point: Point, layer: int | None, sources: list[Tensor], positions: Int[Tensor, "seq"]
    ) -> Tensor:
        """[seq ...] of the selected tokens of a point, the value that these sources give."""
        derive = DERIVED.get(point.name)
        x = (derive(self.model, layer, *sources) if derive else sources[0])[0]
        heads = self.selection.heads_of(point, self.model.config)
        x = x if heads is None else x[heads]
        if "seq" in point.axes:
            x = x.transpose(0, 1) if point.by_head else x
            if self.selection.positions is not None:
                wanted = torch.tensor(self.selection.positions, device=positions.device)
                x = x[torch.isin(positions[len(positions) - len(x) :], wanted)]
        if "key" in point.axes:  # a sliding layer has its last keys only
            hidden = int(positions[-1]) + 1 - x.shape[-1]
            x = F.pad(x, (hidden, 0), value=UNSEEN[point.name])
        # What is kept must be a normal tensor, which autograd accepts.
        with torch.inference_mode(False), torch.no_grad():
            return x.to(point.kept_dtype(self.model.embedding.weight.dtype), copy=True)

    def commit(self) -> None:
        """Keep what the forward recorded: it has succeeded."""
        for key, x in self._new.items():
            if "seq" in POINTS[key[0]].axes:
                self._kept.setdefault(key, []).append(x)
            else:
                self._kept[key] = [x]
        self.begin()

    def tensors(self) -> dict[Key, Tensor]:
        """Everything that was kept, on the CPU: [seq, ...] for each point and layer.

        Raises:
            LabError: a point was never reached, or holds NaN or infinity.
        """
        kept: dict[Key, Tensor] = {}
        for name in self.selection.points:
            for layer in self.selection.layers_of(POINTS[name], self.model.config):
                if (name, layer) not in self._kept:
                    raise LabError(f"{where(name, layer)} was selected but never reached")
                parts = self._kept[name, layer]
                if "key" in POINTS[name].axes:
                    keys = max(part.shape[-1] for part in parts)
                    parts = [
                        F.pad(part, (0, keys - part.shape[-1]), value=UNSEEN[name])
                        for part in parts
                    ]
                kept[name, layer] = check_values(name, layer, concatenate(parts).cpu())
        return kept


def concatenate(parts: list[Tensor]) -> Tensor:
    """One after the other; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def check_values(name: str, layer: int | None, x: Tensor) -> Tensor:
    """Return x; warn if it is an activation that is zero everywhere.

    Raises:
        LabError: it holds NaN, or an infinity that means nothing.
    """
    if not x.numel():
        return x
    if name in INFINITE:
        lowest, highest = x.masked_fill(x == INFINITE[name], 0).aminmax()
    else:
        lowest, highest = x.aminmax()
    if not (lowest.isfinite() and highest.isfinite()):  # with a NaN, both are NaN
        raise LabError(
            f"{where(name, layer)} holds NaN or infinity; the weights or an intervention broke it"
        )
    if POINTS[name].kind == "activation" and lowest == highest == 0:
        warnings.warn(
            f"{where(name, layer)} is zero everywhere; unless that was meant, the weights or an"
            " intervention broke it",
            AllZeroWarning,
            stacklevel=2,
        )
    return x
