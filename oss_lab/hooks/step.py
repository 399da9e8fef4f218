"""One forward pass of a batch: which tokens go through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from oss_lab.hooks.interventions.at import At


@dataclass(frozen=True)
class ForwardPass:
    """The tokens of one forward pass.

    Attributes:
        positions: position of each token in its sequence; negative for padding.
        numbers: number of each row in the batch of requests.
        channels: channel of each token, if an intervention needs it.
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
        earlier_values: Mapping[str, Tensor],
    ) -> At:
        """Describe some rows at a point, for an intervention.

        After the layers, x may have only the last tokens of the forward pass.
        """
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
            earlier_values,
        )
