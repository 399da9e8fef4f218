"""Recording: the taps that keep what was asked for, token after token.

A recording lies over any number of forwards of one sequence: a prompt in chunks, then token by
token. What was asked for and never came is an error, as is a quantity with a NaN; one that is zero
everywhere is warned of.
"""

import warnings
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.derived import DERIVED
from oss_lab.hooks.points import POINTS, Point, tapped
from oss_lab.hooks.selection import Selection, where
from oss_lab.model import Transformer
from oss_lab.model.tap import Tap, keep

Key = tuple[str, int | None]
UNSEEN = {"attn.scores": -torch.inf, "attn.pattern": 0.0}
"""What stands at a key that a layer no longer holds, or that came later."""


class AllZeroWarning(UserWarning):
    """An activation is zero at every token: what should fill it does not work, or was removed."""


class Recording:
    """Taps that keep a selection of one sequence; `tensors` gives what was kept."""

    writes: Collection[str] = ()

    def __init__(self, model: Transformer, selection: Selection) -> None:
        selection.check(model.config)
        self.model, self.selection = model, selection
        self.points: Collection[str] = tapped(selection.points)
        self._kept: dict[Key, list[Tensor]] = {}
        self._seen: dict[Key, int] = {}  # positions that went by

    def __call__(self, layer: int | None) -> Tap:
        chosen = self.selection.layers
        if layer is not None and chosen is not None and layer not in chosen:
            return keep
        wanted = [
            point
            for point in map(POINTS.__getitem__, self.selection.points)
            if point.layered == (layer is not None)
        ]
        handed: dict[str, Tensor] = {}

        def record(name: str, x: Tensor) -> Tensor:
            if name in self.points:
                handed[name] = x.detach()
                for point in wanted:
                    sources = point.sources or (point.name,)
                    if name == sources[-1]:
                        self._keep(point, layer, [handed[source] for source in sources])
            return x

        return record

    def _keep(self, point: Point, layer: int | None, sources: list[Tensor]) -> None:
        """Take the next positions of a point, the quantity that these sources give."""
        derive = DERIVED.get(point.name)
        x = derive(self.model, layer, *sources) if derive else sources[0]
        config, key = self.model.config, (point.name, layer)
        heads = self.selection.heads_of(point, config)
        dtype = point.kept_dtype(self.model.embedding.weight.dtype)
        if "seq" not in point.axes:
            self._kept[key] = [(x if heads is None else x[heads]).to(dtype, copy=True)]
            return
        if len(x) != 1:
            raise LabError(f"a recording is of one sequence, and this forward has {len(x)}")
        x = x[0] if heads is None else x[0][heads]
        x = x.transpose(0, 1) if point.by_head else x
        begin = self._seen.get(key, 0)
        self._seen[key] = begin + len(x)
        rows = self.selection.rows(begin, len(x))
        x = x if rows is None else x[rows]
        if "key" in point.axes:  # a sliding layer hands out its last keys only
            hidden = begin + sources[0].shape[2] - x.shape[-1]
            x = F.pad(x, (hidden, 0), value=UNSEEN[point.name])
        self._kept.setdefault(key, []).append(x.to(dtype, copy=True))

    def tensors(self) -> dict[Key, Tensor]:
        """Everything that was kept, on the CPU: [seq, ...] for each point and layer.

        Raises:
            LabError: a point was never handed out, or holds NaN or infinity.
        """
        kept: dict[Key, Tensor] = {}
        for name in self.selection.points:
            for layer in self.selection.layers_of(POINTS[name], self.model.config):
                if (name, layer) not in self._kept:
                    raise LabError(f"{where(name, layer)} was asked for and never handed out")
                parts = self._kept[name, layer]
                if "key" in POINTS[name].axes:
                    keys = max(part.shape[-1] for part in parts)
                    parts = [
                        F.pad(part, (0, keys - part.shape[-1]), value=UNSEEN[name])
                        for part in parts
                    ]
                kept[name, layer] = checked(name, layer, joined(parts).cpu())
        return kept


def joined(parts: list[Tensor]) -> Tensor:
    """One after the other; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def checked(name: str, layer: int | None, x: Tensor) -> Tensor:
    """x, unless some of it is no number. -inf is one for a hidden key and a forbidden expert.

    Warns where an activation is zero everywhere.
    """
    if not x.numel():
        return x
    excluded = name in ("attn.scores", "moe.router_logits")
    lowest, highest = (x.masked_fill(x == -torch.inf, 0) if excluded else x).aminmax()
    if not (lowest.isfinite() and highest.isfinite()):  # of a NaN both are NaN
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
