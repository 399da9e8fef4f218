"""The KV cache: keys and values of earlier tokens. It can be extended, truncated and forked.

A layer's keys are stored in spans. A fork shares the spans of its parent, which are never written
again, and stores its own tokens in a tail. So neither forking nor continuing copies a key.

`length` is the number of slots in use. `advance` increases it after a successful forward pass. An
interrupted pass has written only beyond `length`, and the next pass overwrites those slots.

Prompts of unequal lengths that start together are padded on the left. Slots count from the left
edge. A token's position is its slot minus its row's padding, so padding has negative positions.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, check_index
from oss_lab.model.past import Keys, Span

KeysValues = Float[Tensor, "2 batch kv_head key head_dim"]
GROWTH = 256  # a buffer grows by at least this many slots


class LayerCache:
    """Keys and values of one layer: frozen spans, followed by a writable tail."""

    def __init__(self, frozen: tuple[KeysValues, ...] = ()) -> None:
        self.frozen = frozen
        self.tail: KeysValues | None = None

    def write(self, new: KeysValues, begin: int) -> None:
        """Write new keys and values into the tail, starting at its slot `begin`."""
        end = begin + new.shape[3]
        if self.tail is None or end > self.tail.shape[3]:
            self.tail = grow(self.tail, new, begin)
        self.tail[:, :, :, begin:end] = new

    def spans(self, first: int, end: int) -> Iterable[tuple[int, KeysValues]]:
        """Yield (first slot, keys and values) of each span, clipped to slots first ... end - 1."""
        start = 0
        for span in (*self.frozen, *(() if self.tail is None else (self.tail,))):
            stop = min(start + span.shape[3], end)
            begin = max(start, first)
            if begin < stop:
                yield begin, span[:, :, :, begin - start : stop - start]
            start += span.shape[3]

    def slice_to(self, length: int) -> tuple[KeysValues, ...]:
        """The spans of the first `length` slots, as views."""
        return tuple(span for _, span in self.spans(0, length))


def grow(tail: KeysValues | None, new: KeysValues, used: int) -> KeysValues:
    """Allocate a larger buffer with room for `new`, and copy the tail's `used` slots into it."""
    size = max(used + new.shape[3] + GROWTH, 2 * used)
    with torch.inference_mode(False):  # a pass outside inference mode may write to it too
        buffer = torch.empty(*new.shape[:3], size, new.shape[4], dtype=new.dtype, device=new.device)
    if tail is not None:
        buffer[:, :, :, :used] = tail[:, :, :, :used]
    return buffer


class KVCache:
    """The cache of `batch` sequences that started together.

    Attributes:
        length: number of slots in use, padding included; new tokens are written here.
        padding: number of empty slots on the left of each row [batch]; None if there are none.
    """

    def __init__(
        self, config: ModelConfig, batch: int = 1, *, padding: Int[Tensor, "batch"] | None = None
    ) -> None:
        self.config, self.batch, self.padding = config, batch, padding
        self.length = 0
        self._frozen = 0  # slots in frozen spans
        self._shared = 0  # slots that a fork may read, frozen ones included
        self.layers = [LayerCache() for _ in range(config.num_hidden_layers)]

    @property
    def is_padded(self) -> bool:
        """Whether some slots may be padding."""
        return self.padding is not None

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "rows seq"]:
        """Positions of the next `seq` tokens; rows is 1 without padding."""
        slots = torch.arange(self.length, self.length + seq, device=device)[None]
        return slots if self.padding is None else slots - self.padding[:, None]

    def count_slots(self, seq: int) -> int:
        """Number of slots once `seq` new tokens are added."""
        return self.length + seq

    def extend(self, layer: int, k: Keys, v: Keys, newest: int) -> Sequence[Span]:
        """Store new keys and values after `length`; return the spans of the last `newest` slots."""
        if self.length < self._shared:
            self._freeze(self.length)
        cache, end = self.layers[layer], self.length + k.shape[2]
        cache.write(torch.stack((k, v)), self.length - self._frozen)
        if not cache.frozen and cache.tail is not None:  # the common case, without a loop
            keys, values = cache.tail[:, :, :, max(0, end - newest) : end].unbind()
            return (Span(0, self.batch, keys, values),)
        return [
            Span(0, self.batch, *span.unbind(), later=end - begin - span.shape[3])
            for begin, span in cache.spans(max(0, end - newest), end)
        ]

    def advance(self, seq: int) -> None:
        """Add `seq` to `length`: these tokens are now stored in every layer."""
        self.length += seq

    def truncate(self, length: int) -> None:
        """Drop everything after the first `length` slots."""
        if not 0 <= length <= self.length:
            raise LabError(
                f"cannot truncate a cache of {self.length} tokens to {length};"
                f" give 0 to {self.length}"
            )
        if length < self._frozen:
            self._freeze(length)
        self.length = length

    def fork(self, batch: int | None = None, *, at: int | None = None) -> "KVCache":
        """Create a cache that continues from here (or from slot `at`) and shares the stored keys.

        A cache of one row can be forked into `batch` rows. No key is copied.
        """
        at = self.length if at is None else at
        rows = self.batch if batch is None else batch
        if not 0 <= at <= self.length:
            raise LabError(
                f"cannot fork a cache of {self.length} tokens at {at}; give 0 to {self.length}"
            )
        if rows != self.batch and self.batch != 1:
            raise LabError(f"cannot fork a cache of {self.batch} rows into {rows}; select one row")
        child = KVCache(self.config, rows)
        child.padding = None if self.padding is None else self.padding.expand(rows)
        child.layers = [LayerCache(layer.slice_to(at)) for layer in self.layers]
        child.length = child._frozen = child._shared = at
        self._shared = max(self._shared, at)
        return child

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch, in this order."""
        chosen = list(rows)
        for row in chosen:
            check_index("row", row, self.batch)
        layers = [LayerCache() for _ in self.layers]
        for kept, layer in zip(layers, self.layers, strict=True):
            kept.frozen = tuple(select_rows(span, chosen) for span in layer.frozen)
            kept.tail = None if layer.tail is None else layer.tail[:, chosen]
        self.padding = None if self.padding is None else self.padding[chosen]
        self.layers, self.batch = layers, len(chosen)

    def _freeze(self, length: int) -> None:
        """Freeze the first `length` slots, and start a new tail after them."""
        self.layers = [LayerCache(layer.slice_to(length)) for layer in self.layers]
        self._frozen = self._shared = length


def select_rows(span: KeysValues, rows: list[int]) -> KeysValues:
    """These rows of a span. A single row is shared by all rows, so it is returned unchanged."""
    return span if span.shape[1] == 1 else span[:, rows]


class JoinedCaches:
    """The caches of a ragged batch, of any lengths, concatenated along the batch."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self.caches = caches

    @property
    def is_padded(self) -> bool:
        return any(cache.is_padded for cache in self.caches)

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "rows seq"]:
        return torch.cat(
            [cache.positions(seq, device).expand(cache.batch, -1) for cache in self.caches]
        )

    def count_slots(self, seq: int) -> int:
        return max(cache.count_slots(seq) for cache in self.caches)

    def extend(self, layer: int, k: Keys, v: Keys, newest: int) -> Sequence[Span]:
        spans, first = [], 0
        for cache in self.caches:
            rows = slice(first, first + cache.batch)
            for span in cache.extend(
                layer, k[rows], v[rows], min(newest, cache.count_slots(k.shape[2]))
            ):
                last = first + span.last
                spans.append(Span(first, last, span.keys, span.values, span.later))
            first += cache.batch
        return spans

    def advance(self, seq: int) -> None:
        for cache in self.caches:
            cache.advance(seq)
