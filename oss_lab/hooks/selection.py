"""What a recording keeps: which points, layers, heads and positions. Plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.points import POINTS, Point, check_points, needs_logits


def unordered(positions: Sequence[int]) -> int | None:
    """The first position that is not behind the one before it."""
    return next((b for a, b in pairwise(positions) if b <= a), None)


@dataclass(frozen=True)
class Selection:
    """What is recorded; None stands for all layers, heads or positions."""

    points: tuple[str, ...]
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None

    def check(self, config: ModelConfig, seq: int | None = None) -> None:
        """Raise LabError for what this model, or a sequence of `seq` tokens, does not have."""
        if any(len(name) == 1 for name in self.points):
            raise LabError("points is one text; give a list of names")
        if not self.points:
            raise LabError("no point is asked for; name at least one")
        check_points(self.points)
        for what, chosen, count in (
            ("layer", self.layers, config.num_hidden_layers),
            ("head", self.heads, config.num_attention_heads),
            ("position", self.positions, seq),
        ):
            if chosen is None or count is None:
                continue
            if not chosen:
                raise LabError(f"{what}s is empty; leave it out for all of them")
            for n in chosen:
                check_index(what, n, count)
        if (falling := unordered(self.positions or ())) is not None:
            raise LabError(f"positions must rise, each given once; {falling} does not")

    def layers_of(self, point: Point, config: ModelConfig) -> list[int | None]:
        """The layers of a point that are kept; [None] outside the layers."""
        if not point.layered:
            return [None]
        return list(range(config.num_hidden_layers) if self.layers is None else self.layers)

    def rows(self, begin: int, count: int) -> list[int] | None:
        """Which of `count` positions from `begin` on are kept; None: all."""
        if self.positions is None:
            return None
        return [
            position - begin for position in self.positions if begin <= position < begin + count
        ]

    def heads_of(self, point: Point, config: ModelConfig) -> list[int] | None:
        """Which heads of a point are kept, key-value heads that they read where it has those."""
        if self.heads is None:
            return None
        if "kv_head" in point.axes:
            group = config.num_attention_heads // config.num_key_value_heads
            return sorted({head // group for head in self.heads})
        return list(self.heads) if "head" in point.axes else None


def while_written(points: Sequence[str]) -> Selection:
    """All that these points hand out while a reply is written.

    Raises:
        LabError: a point needs logits, which a prompt's tokens do not get then.
    """
    for name in points:
        if name in POINTS and needs_logits([name]):
            raise LabError(
                f"{name} is not there for every token while a reply is written: take"
                " `alternatives`, or `trace` the reply"
            )
    return Selection(tuple(points))


def where(name: str, layer: int | None) -> str:
    """How a tensor is named in files and messages: `moe.expert_ids/3`, `out.logits`."""
    return name if layer is None else f"{name}/{layer}"
