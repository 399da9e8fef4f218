"""One forward of a batch: which tokens go through it, and what is recorded and changed there.

Counts and recordings are kept once the forward has succeeded (`commit`); an interrupted one keeps
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from oss_lab.hooks.interventions.at import At


@dataclass(frozen=True)
class Step:
    """The tokens of a forward.

    Attributes:
        positions: of each token in its own sequence; negative where a row has padding.
        channels: of each token, if an intervention needs them.
        numbers: of the rows, in the batch of requests.
    """

    token_ids: Int[Tensor, "row seq"]
    positions: Int[Tensor, "row seq"]
    is_prefill: bool
    numbers: tuple[int, ...]
    channels: tuple[tuple[str | None, ...], ...] | None = None

    def at(
        self,
        rows: Sequence[int],
        point: str,
        layer: int | None,
        x: Tensor,
        handed: Mapping[str, Tensor],
    ) -> At:
        """Where some rows are at a point; after the layers, a forward may hold only its last
        tokens."""
        chosen = list(rows)
        first = self.positions.shape[1] - x.shape[1] if point.startswith("out.") else 0
        channels = self.channels and tuple(self.channels[row][first:] for row in chosen)
        return At(
            layer,
            point,
            self.positions[chosen, first:],
            self.token_ids[chosen, first:],
            channels,
            tuple(self.numbers[row] for row in chosen),
            self.is_prefill,
            handed,
        )
