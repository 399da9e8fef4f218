"""Which tokens go to which expert, cut into tiles of one expert each.

    ids      [[2, 0], [2, 5], [0, 2]]      a pair is a token with one of its experts, numbered
    pairs       0  1    2  3    4  5       token * slots + slot

    sorted   expert 0: 1 4 | expert 2: 0 2 5 | expert 5: 3
    tiles of two   [1 4]       [0 2] [5 -]         [3 -]        [- -]  [- -]  ...

How many tiles there are depends on the ids, which are on the device and stay there: asking for the
number would stall it. So there are as many as there could be, and those at the end are empty.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """Pairs by expert, in token order within an expert. All int32.

    Tile n holds the sorted pairs first[n] to end[n] - 1, at most its size, all of expert[n]; in
    empty tiles first >= end.
    """

    pairs: Int[Tensor, "pair"]
    expert: Int[Tensor, "tile"]
    first: Int[Tensor, "tile"]
    end: Int[Tensor, "tile"]


def tile_count(pairs: int, experts: int, size: int) -> int:
    """The most tiles that pairs can take: each expert in use may waste size - 1 places."""
    return (pairs + min(pairs, experts) * (size - 1)) // size


def tiles_of(ids: Int[Tensor, "token slot"], experts: int, size: int) -> Tiles:
    """Tiles of `size` pairs; ids from 0 to experts - 1. The host waits for nothing."""
    by_expert, pairs = ids.flatten().sort(stable=True)
    every = torch.arange(experts + 1, dtype=ids.dtype, device=ids.device)
    starts = torch.searchsorted(by_expert, every)  # [expert + 1] in the sorted pairs
    tiles = (starts.diff() + size - 1) // size
    tiles_up_to = tiles.cumsum(0)  # of this expert and those before it
    tile = torch.arange(tile_count(len(pairs), experts, size), device=ids.device)
    # Tiles past the last count as further ones of the last expert, which begin past its end.
    expert = torch.searchsorted(tiles_up_to, tile, right=True).clamp(max=experts - 1)
    first = starts[expert] + (tile - (tiles_up_to - tiles)[expert]) * size
    end = torch.minimum(first + size, starts[expert + 1])
    return Tiles(*(each.int() for each in (pairs, expert, first, end)))
