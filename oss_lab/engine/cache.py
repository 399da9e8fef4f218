"""Keys and values of earlier tokens: extended, truncated, forked, and joined to ragged batches.

A layer's keys are stored in spans. A fork shares the spans of its parent, which are never written
again, and puts its own tokens in a tail: forking and continuing copy no key. How many tokens a
cache holds is one number, its `length`, which `advance` moves once a forward has succeeded. An
interrupted forward has written only after that mark, where the next one overwrites it.

Prompts of unequal lengths that begin together are padded at the left. Slots count from the left
edge; a token's position is its slot less its row's padding, so padding has negative positions.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, check_index
from oss_lab.model.past import Keys, Span

KeysValues = Float[Tensor, "2 batch kv_head key head_dim"]
GROWTH = 256  # slots by which a buffer grows at least


class LayerCache:
    """Keys and values of one layer: frozen spans, then a tail that is written."""

    def __init__(self, frozen: tuple[KeysValues, ...] = ()) -> None:
        self.frozen = frozen
        self.tail: KeysValues | None = None

    def write(self, new: KeysValues, begin: int) -> None:
        """Put new keys and values into the tail, from its slot `begin` on."""
        end = begin + new.shape[3]
        if self.tail is None or end > self.tail.shape[3]:
            self.tail = grow(self.tail, new, begin)
        self.tail[:, :, :, begin:end] = new

    def spans(self, first: int, end: int) -> Iterable[tuple[int, KeysValues]]:
        """(first slot, keys and values) of each span within the slots first ... end - 1."""
        start = 0
        for held in (*self.frozen, *(() if self.tail is None else (self.tail,))):
            stop = min(start + held.shape[3], end)
            begin = max(start, first)
            if begin < stop:
                yield begin, held[:, :, :, begin - start : stop - start]
            start += held.shape[3]

    def held(self, length: int) -> tuple[KeysValues, ...]:
        """The first `length` slots, as views."""
        return tuple(span for _, span in self.spans(0, length))


def grow(tail: KeysValues | None, new: KeysValues, used: int) -> KeysValues:
    """A larger buffer that begins with the `used` slots of a tail and has room for `new`."""
    size = max(used + new.shape[3] + GROWTH, 2 * used)
    with torch.inference_mode(False):  # a forward outside inference mode may write it too
        buffer = torch.empty(*new.shape[:3], size, new.shape[4], dtype=new.dtype, device=new.device)
    if tail is not None:
        buffer[:, :, :, :used] = tail[:, :, :, :used]
    return buffer


class KVCache:
    """The past of `batch` sequences that began together.

    Attributes:
        length: slots in use, padding included; the write cursor.
        padding: slots at the left of each row that hold no token [batch]; None: none.
    """

    def __init__(
        self, config: ModelConfig, batch: int = 1, *, padding: Int[Tensor, "batch"] | None = None
    ) -> None:
        self.config, self.batch, self.padding = config, batch, padding
        self.length = 0
        self._frozen = 0  # slots in frozen spans
        self._shared = 0  # slots that a fork may read in the tail's buffer, the frozen included
        self.layers = [LayerCache() for _ in range(config.num_hidden_layers)]

    @property
    def is_padded(self) -> bool:
        """Whether some slots may be padding."""
        return self.padding is not None

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "rows seq"]:
        """Positions of the next `seq` tokens; rows is 1 without padding."""
        slots = torch.arange(self.length, self.length + seq, device=device)[None]
        return slots if self.padding is None else slots - self.padding[:, None]

    def slots(self, seq: int) -> int:
        """Slots with `seq` new tokens."""
        return self.length + seq

    def extend(self, layer: int, k: Keys, v: Keys, reach: int) -> Sequence[Span]:
        """Store new keys and values after the cursor; the spans of the last `reach` slots."""
        if self.length < self._shared:
            self._freeze(self.length)
        cache, end = self.layers[layer], self.length + k.shape[2]
        cache.write(torch.stack((k, v)), self.length - self._frozen)
        if not cache.frozen and cache.tail is not None:  # the common case, without a loop
            keys, values = cache.tail[:, :, :, max(0, end - reach) : end].unbind()
            return (Span(0, self.batch, keys, values),)
        return [
            Span(0, self.batch, *span.unbind(), later=end - begin - span.shape[3])
            for begin, span in cache.spans(max(0, end - reach), end)
        ]

    def advance(self, seq: int) -> None:
        """Move the cursor: the last `seq` tokens are stored in every layer."""
        self.length += seq

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` slots."""
        if not 0 <= length <= self.length:
            raise LabError(f"cannot truncate a cache of {self.length} tokens to {length}")
        if length < self._frozen:
            self._freeze(length)
        self.length = length

    def fork(self, batch: int | None = None, *, at: int | None = None) -> "KVCache":
        """A cache that continues from here (or from slot `at`) and shares what is stored.

        A cache of one row can be forked into a `batch` of rows. No key is copied.
        """
        at = self.length if at is None else at
        rows = self.batch if batch is None else batch
        if not 0 <= at <= self.length:
            raise LabError(f"cannot fork a cache of {self.length} tokens at {at}")
        if rows != self.batch and self.batch != 1:
            raise LabError(f"cannot fork a cache of {self.batch} rows into {rows}; select one row")
        child = KVCache(self.config, rows)
        child.padding = None if self.padding is None else self.padding.expand(rows)
        child.layers = [LayerCache(layer.held(at)) for layer in self.layers]
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
            kept.frozen = tuple(rows_of(span, chosen) for span in layer.frozen)
            kept.tail = None if layer.tail is None else layer.tail[:, chosen]
        self.padding = None if self.padding is None else self.padding[chosen]
        self.layers, self.batch = layers, len(chosen)

    def _freeze(self, length: int) -> None:
        """Freeze the first `length` slots, and begin another tail after them."""
        self.layers = [LayerCache(layer.held(length)) for layer in self.layers]
        self._frozen = self._shared = length


def rows_of(span: KeysValues, rows: list[int]) -> KeysValues:
    """These rows of a span; one row that all share serves any."""
    return span if span.shape[1] == 1 else span[:, rows]


class Together:
    """The past of a ragged batch: caches of any lengths, one after the other in the batch."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self.caches = caches

    @property
    def is_padded(self) -> bool:
        return any(cache.is_padded for cache in self.caches)

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "rows seq"]:
        return torch.cat(
            [cache.positions(seq, device).expand(cache.batch, -1) for cache in self.caches]
        )

    def slots(self, seq: int) -> int:
        return max(cache.slots(seq) for cache in self.caches)

    def extend(self, layer: int, k: Keys, v: Keys, reach: int) -> Sequence[Span]:
        spans, first = [], 0
        for cache in self.caches:
            rows = slice(first, first + cache.batch)
            for span in cache.extend(layer, k[rows], v[rows], min(reach, cache.slots(k.shape[2]))):
                last = first + span.last
                spans.append(Span(first, last, span.keys, span.values, span.later))
            first += cache.batch
        return spans

    def advance(self, seq: int) -> None:
        for cache in self.caches:
            cache.advance(seq)
