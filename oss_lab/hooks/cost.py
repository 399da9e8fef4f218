"""The size of a trace, computed from the table of points before it is recorded.

The size is exact. The forward pass additionally needs memory for one layer's activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, Axis, Point
from oss_lab.hooks.selection import Selection
from oss_lab.model import Transformer

BUDGET = 2 * 2**30  # bytes


@dataclass(frozen=True)
class TracePlan:
    """The cost of a trace of `seq` tokens.

    Attributes:
        bytes_of: bytes of each point, over all its layers.
        seconds: time of one pass over the sequence that records these points; measured on the first
            tokens and scaled up.
    """

    seq: int
    bytes_of: dict[str, int]
    seconds: float

    @property
    def total(self) -> int:
        """Bytes of all points together."""
        return sum(self.bytes_of.values())

    def __str__(self) -> str:
        width = max(map(len, self.bytes_of))
        lines = [
            f"{name:{width}}  {format_bytes(size):>10}" for name, size in self.bytes_of.items()
        ]
        return "\n".join(
            [*lines, f"{self.seq} tokens: {format_bytes(self.total)}, about {self.seconds:.1g} s"]
        )


def nbytes(model: Transformer, selection: Selection, point: Point, seq: int) -> int:
    """Bytes of one point, over its selected layers, in a trace of `seq` tokens."""
    config = model.config
    heads = selection.heads_of(point, config)
    kept: dict[Axis, int | None] = {
        "seq": None if selection.positions is None else len(selection.positions),
        "head": None if heads is None else len(heads),
        "kv_head": None if heads is None else len(heads),
    }
    size = point.trace_dtype(model.embedding.weight.dtype).itemsize
    for axis in point.axes:
        chosen = kept.get(axis)
        size *= point.size(axis, config, seq) if chosen is None else chosen
    return size * len(selection.layers_of(point, config))


def check_budget(
    model: Transformer, selection: Selection, lengths: Sequence[int], budget: float
) -> None:
    """Raise LabError if traces of sequences of these lengths would exceed `budget` bytes."""
    sizes = {
        name: sum(nbytes(model, selection, POINTS[name], seq) for seq in lengths)
        for name in selection.points
    }
    total, largest = sum(sizes.values()), max(sizes, key=lambda name: sizes[name])
    if total > budget:
        raise LabError(
            f"{'this trace' if len(lengths) == 1 else 'these traces'} of {sum(lengths)} tokens"
            f" would take {format_bytes(total)}, of which {largest} takes"
            f" {format_bytes(sizes[largest])}, but the budget is {format_bytes(budget)}; select"
            " fewer layers, heads or positions, or give a larger budget"
        )


def format_bytes(size: float) -> str:
    """A number of bytes in readable units."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:g} bytes"
