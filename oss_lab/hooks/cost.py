"""What a trace costs, before anything is computed: bytes from the table of points, and seconds.

Bytes are what the trace will hold, to the byte; a forward needs room for one layer's quantities
besides. Seconds are a measurement: a first piece of the sequence is run and scaled up.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from oss_lab.engine.generate import read
from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, Axis, Point
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection
from oss_lab.model import Transformer

PIECE = 64  # tokens that are run to measure the time
BUDGET = 2 * 2**30  # bytes


@dataclass(frozen=True)
class Plan:
    """The price of a trace of `seq` tokens.

    Attributes:
        bytes_of: of each point, all its layers.
        seconds: of one run through the sequence with these taps; measured on its first tokens.
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


def plan(model: Transformer, selection: Selection, tokens: Sequence[int]) -> Plan:
    """Bytes and seconds of a trace."""
    seconds = measured(model, selection, tokens)
    points = [POINTS[name] for name in selection.points]
    bytes_of = {point.name: nbytes(model, selection, point, len(tokens)) for point in points}
    return Plan(len(tokens), bytes_of, seconds)


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


def measured(model: Transformer, selection: Selection, tokens: Sequence[int]) -> float:
    """Seconds of a run through all tokens, from one through the first of them."""
    first = tokens[:PIECE]
    everywhere = Selection(selection.points, selection.layers, selection.heads)
    began = time.perf_counter()
    for _ in read(model, first, taps=Recording(model, everywhere)):
        pass
    return (time.perf_counter() - began) * len(tokens) / len(first)


def check_budget(model: Transformer, selection: Selection, seq: int, budget: int) -> None:
    """Raise LabError for a trace that would hold more than `budget` bytes."""
    sizes = {name: nbytes(model, selection, POINTS[name], seq) for name in selection.points}
    total, largest = sum(sizes.values()), max(sizes, key=lambda name: sizes[name])
    if total > budget:
        raise LabError(
            f"this trace of {seq} tokens would hold {shown(total)}, {shown(sizes[largest])} of it"
            f" {largest}, and the budget is {shown(budget)}: ask for fewer layers, heads or"
            " positions, or give a larger budget"
        )


def shown(size: int) -> str:
    """Bytes as a person reads them."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
