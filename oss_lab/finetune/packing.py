"""Pack examples into rows of a fixed length, so that little of a batch is padding.

Each example starts at position 0 and sees only its own tokens: `PackedRows` is the past (see
`oss_lab/model/past.py`) that gives the model these positions and this mask. The rest of a row is
padding, at position -1, which sees nothing and is not learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.finetune.examples import Example
from oss_lab.model.past import NoPast

OPEN_ROWS = 16  # rows that the next example may still go into
PADDING = -1


@dataclass(frozen=True)
class PackedBatch:
    """Rows of packed examples: each token, its successor, and where it belongs.

    Attributes:
        weights: how much each target counts in the loss.
        positions: the position in its example; -1 for padding.
        examples: the number of its example within the row; -1 for padding.
    """

    inputs: Int[Tensor, "row seq"]
    targets: Int[Tensor, "row seq"]
    weights: Float[Tensor, "row seq"]
    positions: Int[Tensor, "row seq"]
    examples: Int[Tensor, "row seq"]

    def to(self, device: torch.device) -> "PackedBatch":
        """The batch on another device."""
        return PackedBatch(*(each.to(device) for each in vars(self).values()))


class PackedRows(NoPast):
    """The positions and texts of packed rows; there are no earlier tokens."""

    is_padded = True

    def __init__(self, batch: PackedBatch) -> None:
        self._positions, self.samples = batch.positions, batch.examples

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "row seq"]:
        return self._positions


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Rows of at most `width` tokens, each a list of numbers of examples.

    Every example goes into the first of the last OPEN_ROWS rows that has room for it.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number, length in enumerate(lengths):
        first = max(0, len(rows) - OPEN_ROWS)
        fits = next((n for n in range(first, len(rows)) if room[n] >= length), None)
        if fits is None:
            fits = len(rows)
            rows.append([])
            room.append(width)
        rows[fits].append(number)
        room[fits] -= length
    return rows


def collate(rows: Sequence[Sequence[Example]]) -> PackedBatch:
    """The rows as tensors, as wide as the longest of them."""
    width = max(sum(len(each.tokens) - 1 for each in row) for row in rows)
    batch = PackedBatch(
        inputs=torch.zeros(len(rows), width, dtype=torch.long),
        targets=torch.zeros(len(rows), width, dtype=torch.long),
        weights=torch.zeros(len(rows), width),
        positions=torch.full((len(rows), width), PADDING),
        examples=torch.full((len(rows), width), PADDING),
    )
    for n, row in enumerate(rows):
        start = 0
        for number, example in enumerate(row):
            tokens, end = torch.tensor(example.tokens), start + len(example.tokens) - 1
            batch.inputs[n, start:end] = tokens[:-1]
            batch.targets[n, start:end] = tokens[1:]
            batch.weights[n, start:end] = torch.tensor(example.learned[1:]) * example.weight
            batch.positions[n, start:end] = torch.arange(end - start)
            batch.examples[n, start:end] = number
            start = end
    return batch
