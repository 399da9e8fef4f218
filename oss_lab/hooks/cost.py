"""What a trace costs, before anything is computed: its bytes, from the table of points.

The size is exact. The forward additionally needs memory for one layer's activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, Axis, Point
from oss_lab.hooks.selection import Selection
from oss_lab.model import Transformer

BUDGET = 2 * 2**30  # bytes


@dataclass(frozen=True)
class Plan:
    """The price of a trace of `seq` tokens.

    Attributes:
        bytes_of: of each point, all its layers.
        seconds: of one run through the sequence that records these points; measured on its first
            tokens and scaled up.
    """

    seq: int
    bytes_of: dict[str, int]
    seconds: float

    @property
    def total(self) -> int:
        """Bytes of all points."""
        return sum(self.bytes_of.values())

    def __str__(self) -> str:
        width = max(map(len, self.bytes_of))
        lines = [f"{name:{width}}  {shown(size):>10}" for name, size in self.bytes_of.items()]
        return "\n".join(
            [*lines, f"{self.seq} tokens: {shown(self.total)}, about {self.seconds:.1g} s"]
        )


def nbytes(model: Transformer, selection: Selection, point: Point, seq: int) -> int:
    """Bytes that a trace of `seq` tokens keeps of a point, in all its layers."""
    config = model.config
    heads = selection.heads_of(point, config)
    kept: dict[Axis, int | None] = {
        "seq": None if selection.positions is None else len(selection.positions),
        "head": None if heads is None else len(heads),
        "kv_head": None if heads is None else len(heads),
    }
    size = point.kept_dtype(model.embedding.weight.dtype).itemsize
    for axis in point.axes:
        chosen = kept.get(axis)
        size *= point.size(axis, config, seq) if chosen is None else chosen
    return size * len(selection.layers_of(point, config))


def check_budget(
    model: Transformer, selection: Selection, lengths: Sequence[int], budget: int
) -> None:
    """Raise LabError if traces of sequences of these lengths would hold more than `budget`
    bytes."""
    sizes = {
        name: sum(nbytes(model, selection, POINTS[name], seq) for seq in lengths)
        for name in selection.points
    }
    total, largest = sum(sizes.values()), max(sizes, key=lambda name: sizes[name])
    if total > budget:
        raise LabError(
            f"{'this trace' if len(lengths) == 1 else 'these traces'} of {sum(lengths)} tokens"
            f" would hold {shown(total)}, {shown(sizes[largest])} of it {largest}, and the budget"
            f" is {shown(budget)}: ask for fewer layers, heads or positions, or give a larger"
            " budget"
        )


def shown(size: int) -> str:
    """Bytes as a person reads them."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
