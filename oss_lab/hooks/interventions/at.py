"""What an intervention is given besides the value it changes: where the forward is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class At:
    """Where a forward is when it asks for a change: a layer, a point, and the tokens of some rows.

    Attributes:
        positions: of each token in its own sequence; negative where the row has padding.
        channels: of each token, if an intervention needs them.
        rows: numbers of these rows in the batch.
        handed: what this layer computed so far, for the same rows, after changes.
    """

    layer: int | None
    point: str
    positions: Int[Tensor, "row seq"]
    token_ids: Int[Tensor, "row seq"]
    channels: tuple[tuple[str | None, ...], ...] | None
    rows: tuple[int, ...]
    is_prefill: bool
    handed: Mapping[str, Tensor]

    def selects(self, positions: tuple[int, ...] | None) -> Bool[Tensor, "row seq"]:
        """Which tokens are at these positions; None: every token that is not padding."""
        if positions is None:
            return self.positions >= 0
        chosen = torch.tensor(positions, device=self.positions.device)
        return torch.isin(self.positions, chosen)

    def key_positions(self, keys: int) -> Int[Tensor, "row key"]:
        """Positions of the last `keys` keys, of which the last is the last token's own."""
        back = torch.arange(keys - 1, -1, -1, device=self.positions.device)
        return self.positions[:, -1:] - back
