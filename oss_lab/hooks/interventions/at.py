"""What an intervention receives in addition to the value that it changes: where that value is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class At:
    """Where a value is in the forward pass: its layer, its point, and the tokens of some rows.

    Attributes:
        positions: position of each token in its sequence; negative for padding.
        channels: channel of each token, if an intervention needs it.
        rows: numbers of these rows in the batch.
        earlier_values: values of earlier points of this layer, for the same rows, after changes.
    """

    layer: int | None
    point: str
    positions: Int[Tensor, "row seq"]
    token_ids: Int[Tensor, "row seq"]
    channels: tuple[tuple[str | None, ...], ...] | None
    rows: tuple[int, ...]
    is_prefill: bool
    earlier_values: Mapping[str, Tensor]

    def select_tokens(self, positions: tuple[int, ...] | None) -> Bool[Tensor, "row seq"]:
        """True for tokens at these positions; None selects every token except padding."""
        if positions is None:
            return self.positions >= 0
        chosen = torch.tensor(positions, device=self.positions.device)
        return torch.isin(self.positions, chosen)

    def key_positions(self, keys: int) -> Int[Tensor, "row key"]:
        """Positions of the last `keys` keys; the final one is the last token's key."""
        back = torch.arange(keys - 1, -1, -1, device=self.positions.device)
        return self.positions[:, -1:] - back
