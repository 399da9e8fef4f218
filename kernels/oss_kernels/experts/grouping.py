"""Group tokens by expert, and split each group into tiles.

    ids      [[2, 0], [2, 5], [0, 2]]      a pair is a token and one of its experts; its number is
    pairs       0  1    2  3    4  5       token * slots + slot

    sorted   expert 0: 1 4 | expert 2: 0 2 5 | expert 5: 3
    tiles of two   [1 4]       [0 2] [5 -]         [3 -]        [- -]  [- -]  ...

The number of tiles depends on the ids, which stay on the device: reading them would make the host
wait. So the largest possible number of tiles is allocated, and the tiles at the end are empty.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """Pairs sorted by expert, in token order within an expert. All int32.

    Tile n contains the sorted pairs first[n] to end[n] - 1, all of expert[n]. An empty tile has
    first >= end.
    """

    pairs: Int[Tensor, "pair"]
    expert: Int[Tensor, "tile"]
    first: Int[Tensor, "tile"]
    end: Int[Tensor, "tile"]


def tile_count(pairs: int, experts: int, size: int) -> int:
    """The most tiles that `pairs` pairs can need: each expert in use may waste size - 1 places."""
    return (pairs + min(pairs, experts) * (size - 1)) // size


def make_tiles(ids: Int[Tensor, "token slot"], experts: int, size: int) -> Tiles:
    """Tiles of at most `size` pairs. ids are from 0 to experts - 1. The host never waits."""
    by_expert, pairs = ids.flatten().sort(stable=True)
    every = torch.arange(experts + 1, dtype=ids.dtype, device=ids.device)
    starts = torch.searchsorted(by_expert, every)  # [expert + 1], indices into the sorted pairs
    tiles = (starts.diff() + size - 1) // size
    tiles_up_to = tiles.cumsum(0)  # tiles of this expert and all before it
    tile = torch.arange(tile_count(len(pairs), experts, size), device=ids.device)
    # Empty tiles are assigned to the last expert and start after its end.
    expert = torch.searchsorted(tiles_up_to, tile, right=True).clamp(max=experts - 1)
    first = starts[expert] + (tile - (tiles_up_to - tiles)[expert]) * size
    end = torch.minimum(first + size, starts[expert + 1])
    return Tiles(*(each.int() for each in (pairs, expert, first, end)))
