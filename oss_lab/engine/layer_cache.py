"""Keys and values of one layer of a KV cache: frozen spans and a writable tail (`cache.py`)."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

KeysValues = Float[Tensor, "2 batch kv_head key head_dim"]
GROWTH = 256  # a buffer grows by at least this many slots


class LayerCache:
    """Keys and values of one layer: frozen spans, followed by a writable tail.

    Attributes:
        first: the slot of the tail's first entry; earlier slots are frozen, or no longer kept.
        reach: how many slots before the new tokens are kept; None keeps all.
        tail: [2 batch kv_head slot head_dim], keys then values; None before the first write. A
            write that needs room replaces it with another buffer, and may increase `first`.
    """

    def __init__(
        self, first: int = 0, frozen: tuple[KeysValues, ...] = (), reach: int | None = None
    ) -> None:
        self.first, self.frozen, self.reach = first, frozen, reach
        self.tail: KeysValues | None = None

    def write(self, new: KeysValues, slot: int, most: int) -> None:
        """Write new keys and values from this slot on; `most` is the context length."""
        count = new.shape[3]
        if not self.has_room(slot, count):
            self.make_room(new, slot, most)
        assert self.tail is not None
        begin = slot - self.first
        self.tail[:, :, :, begin : begin + count] = new

    def has_room(self, slot: int, count: int) -> bool:
        """Whether the tail has room for `count` tokens from this slot on."""
        return self.tail is not None and slot - self.first + count <= self.tail.shape[3]

    def make_room(self, new: KeysValues, slot: int, most: int) -> None:
        """Copy the slots that are kept into a buffer with room for `new`."""
        first = self.first if self.reach is None else max(self.first, slot - self.reach)
        used = slot - first
        needed = used + new.shape[3]
        # Doubling keeps the number of copies small; a layer with a reach is copied when it is full.
        size = needed + GROWTH if self.reach is not None else max(needed + GROWTH, 2 * used)
        buffer = empty_buffer(new, new.shape[1], max(needed, min(size, most)))
        if self.tail is not None:
            begin = first - self.first
            buffer[:, :, :, :used] = self.tail[:, :, :, begin : begin + used]
        self.tail, self.first = buffer, first

    def spans(self, first: int, end: int) -> Iterable[tuple[int, KeysValues]]:
        """Yield (first slot, keys and values) of each span, clipped to slots first ... end - 1."""
        start = self.first - sum(span.shape[3] for span in self.frozen)
        for span in (*self.frozen, *(() if self.tail is None else (self.tail,))):
            stop = min(start + span.shape[3], end)
            begin = max(start, first)
            if begin < stop:
                yield begin, span[:, :, :, begin - start : stop - start]
            start += span.shape[3]

    def slice_to(self, length: int) -> tuple[KeysValues, ...]:
        """The spans of the first `length` slots, as views."""
        return tuple(span for _, span in self.spans(0, length))

    def select(self, rows: list[int], dropped: int = 0) -> "LayerCache":
        """A copy with these rows of the batch, without the first `dropped` slots."""
        frozen = tuple(select_rows(span, rows) for _, span in self.spans(dropped, self.first))
        kept = LayerCache(max(0, self.first - dropped), frozen, self.reach)
        if self.tail is not None:
            kept.tail = self.tail[:, rows, :, max(0, dropped - self.first) :]
        return kept


def empty_buffer(like: KeysValues, batch: int, slots: int) -> KeysValues:
    """A buffer for keys and values of the kind of `like`."""
    shape = (2, batch, like.shape[2], slots, like.shape[4])
    with torch.inference_mode(False):  # a pass outside inference mode may write to it too
        return torch.empty(shape, dtype=like.dtype, device=like.device)


def select_rows(span: KeysValues, rows: list[int]) -> KeysValues:
    """These rows of a span. A single row is shared by all rows, so it is returned unchanged."""
    return span if span.shape[1] == 1 else span[:, rows]
