"""Merge KV caches of different lengths into one, so a step reads all their rows at once.

Every cache costs its own attention in each layer, whatever its number of rows. On nano, 32 rows
with a cache each decode at half the speed of 32 rows in one cache.

The shorter rows get padding on their left. Keys are rotated by their position before they are
stored, and a position is the slot minus the padding, so a key can move to another slot unchanged.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from oss_lab.engine.cache import GROWTH, KeysValues, KVCache, LayerCache


class Part(NamedTuple):
    """A layer of one of the caches, whose rows have tokens in slots first ... end - 1."""

    layer: LayerCache
    rows: int
    first: int
    end: int

    @property
    def spans(self) -> list[tuple[int, KeysValues]]:
        """(first slot, keys and values) of each span."""
        return list(self.layer.spans(self.first, self.end))


def merge_caches(caches: Sequence[KVCache]) -> KVCache:
    """One cache with a copy of all rows, in their order; the given caches do not change.

    Padding that every row of a cache has is dropped.
    """
    firsts = [0 if each.padding is None else int(each.padding.min()) for each in caches]
    length = max(each.length - first for each, first in zip(caches, firsts, strict=True))
    merged = KVCache(caches[0].config, sum(each.batch for each in caches))
    for number in range(len(merged.layers)):
        parts = [
            Part(each.layers[number], each.batch, first, each.length)
            for each, first in zip(caches, firsts, strict=True)
        ]
        merged.layers[number] = merge_layers(parts, length)
    device = next(span for _, span in merged.layers[0].spans(0, length)).device
    merged.padding = torch.cat([find_padding(each, length, device) for each in caches])
    merged.length = length
    return merged


def merge_layers(parts: Sequence[Part], length: int) -> LayerCache:
    """Copy the parts into one buffer, each to the right edge of its `length` slots."""
    like = parts[0].spans[0][1]
    rows = sum(part.rows for part in parts)
    shape = (2, rows, like.shape[2], length + GROWTH, like.shape[4])
    with torch.inference_mode(False):  # a pass outside inference mode may write to it too
        buffer = torch.empty(shape, dtype=like.dtype, device=like.device)
    row = 0
    for part in parts:
        own, shift = buffer[:, row : row + part.rows], length - part.end
        # A hidden key has weight 0, but 0 times what is in new memory may be NaN.
        own[:, :, :, : part.first + shift] = 0
        for slot, span in part.spans:
            own[:, :, :, slot + shift : slot + shift + span.shape[3]] = span
        row += part.rows
    merged = LayerCache()
    merged.tail = buffer
    return merged


def find_padding(cache: KVCache, length: int, device: torch.device) -> Int[Tensor, "batch"]:
    """The padding of the rows of a cache in a merged cache of this length."""
    none = torch.zeros(cache.batch, dtype=torch.int64, device=device)
    return (none if cache.padding is None else cache.padding) + (length - cache.length)


def find_mergers(lengths: Iterable[int]) -> list[list[int]]:
    """The indices of the lengths to merge: those between the same powers of two.

    So at most half of a merged row is padding.
    """
    classes: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        classes.setdefault(length.bit_length(), []).append(number)
    return [numbers for numbers in classes.values() if numbers[1:]]
