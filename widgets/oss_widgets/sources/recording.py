"""What is recorded of a run, kept until the run is gone.

The cheap points of all layers are recorded together, and again only for tokens that are new. Other
points are recorded for one layer and one range of positions, when a view first requests them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, check_points
from oss_lab.hooks.recording import Key
from oss_widgets.sources.reading import record

if TYPE_CHECKING:
    from oss_widgets.sources.run import Run

CHEAP = (
    "moe.expert_ids",
    "moe.expert_weights",
    "moe.router_logits",
    "moe.margin",
    "moe.entropy",
    "attn.sink_mass",
)
KEPT_BYTES = 256 * 2**20  # of the other points; the oldest are dropped


class RunRecording:
    """The recorded points of one run."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.length = 0  # tokens that the cheap points cover
        self._cheap: dict[Key, Tensor] = {}
        self._kept: OrderedDict[tuple[Key, int, int], Tensor] = OrderedDict()

    def get(self, name: str, layer: int | None, begin: int, end: int) -> Tensor:
        """A point at positions begin ... end - 1 [seq ...]; without a seq axis, all of it.

        Raises:
            LabError: the point, layer or range does not exist, or the result is too large.
        """
        check_points([name])
        if name in CHEAP and (name, layer) in self._extend(end):
            return self._cheap[name, layer][begin:end]
        key = (name, layer), begin, end
        if key not in self._kept:
            layers: Sequence[int] | None = None if layer is None else [layer]
            found = record(self.run, [name], layers, begin, end)
            if (name, layer) not in found:
                what = "needs a layer" if POINTS[name].is_per_layer else "is outside the layers"
                raise LabError(f"{name} {what}")
            self._kept[key] = found[name, layer]
            while len(self._kept) > 1 and sum(x.nbytes for x in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _extend(self, end: int) -> dict[Key, Tensor]:
        """The cheap points, at least of the tokens before `end`."""
        if end > self.length:
            new = record(self.run, CHEAP, None, self.length, end)
            old = self._cheap
            self._cheap = {k: torch.cat([old[k], x]) if k in old else x for k, x in new.items()}
            self.length = end
        return self._cheap

    def release(self) -> None:
        """Free everything but the cheap points."""
        self._kept.clear()

    def truncate(self, length: int) -> None:
        """Drop what was recorded after the first `length` tokens."""
        self.length = min(self.length, length)
        self._cheap = {key: x[: self.length] for key, x in self._cheap.items()} if length else {}
        self._kept = OrderedDict((key, x) for key, x in self._kept.items() if key[2] <= length)

    def fork(self, run: "Run", length: int) -> "RunRecording":
        """The recording of a run that shares the tokens before `length`."""
        child = RunRecording(run)
        child.length = min(self.length, length)
        if child.length:
            child._cheap = {key: x[: child.length] for key, x in self._cheap.items()}
        return child
