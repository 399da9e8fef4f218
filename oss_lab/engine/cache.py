"""The KV cache: keys and values of earlier tokens. It can be extended, truncated and forked.

A layer's keys are stored in spans. A fork shares the spans of its parent, which are never written
again, and stores its own tokens in a tail. So neither forking nor continuing copies a key.

`length` is the number of slots in use. `advance` increases it after a successful forward pass. An
interrupted pass has written only beyond `length`, and the next pass overwrites those slots.

Prompts of unequal lengths that start together are padded on the left. Slots count from the left
edge. A token's position is its slot minus its row's padding, so padding has negative positions.

A decode step on a GPU keeps the newest keys in its own buffers. It is then the cache's holder, and
gives them back when anything uses `layers`.

A cache with `history="window"` keeps in sliding layers only what later tokens can read: 131,072
tokens of gpt-oss-20b then need 3 GiB instead of 6. It cannot be forked, or truncated by more than
the last forward pass. A batch uses one for requests that do not bring a cache.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from oss_lab.config import History, ModelConfig
from oss_lab.engine.layer_cache import KeysValues, LayerCache
from oss_lab.errors import LabError, check_index
from oss_lab.model.past import Keys, Span


class KeyHolder(Protocol):
    """Keeps the newest keys of a cache elsewhere, where a decode step reads and writes them."""

    def give_back(self, cache: "KVCache") -> None:
        """Store them in the cache (`KVCache.store`), and hold the cache no longer."""
        ...


class KVCache:
    """The cache of `batch` sequences that started together.

    Attributes:
        length: number of slots in use, padding included; new tokens are written here.
        padding: number of empty slots on the left of each row [batch]; None if there are none.
        history: "full" keeps all tokens in all layers. "window" keeps in sliding layers only the
            tokens that new ones can see, with the published mask.
        holder: has newer keys than the layers; None if the layers have them all.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int = 1,
        *,
        padding: Int[Tensor, "batch"] | None = None,
        history: History = "full",
    ) -> None:
        self.config, self.batch, self.padding, self.history = config, batch, padding, history
        self.samples = None  # every row is one text
        self.length = 0
        self._most = config.max_context_length
        self._frozen = 0  # slots in frozen spans
        self._shared = 0  # slots that a fork may read, frozen ones included
        windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        # A new token sees itself and the window - 1 tokens before it.
        reach = [None if window is None or history == "full" else window - 1 for window in windows]
        self._layers = [LayerCache(reach=each) for each in reach]
        self.holder: KeyHolder | None = None

    @property
    def layers(self) -> list[LayerCache]:
        """The keys and values of each layer. A holder gives back first what it has."""
        if self.holder is not None:
            self.holder.give_back(self)
        return self._layers

    def store(self, slot: int, keys: Iterable[KeysValues]) -> None:
        """Store the holder's keys and values of the tokens from `slot` on, for each layer."""
        if slot < self._shared:
            self._freeze(slot)
        for layer, new in zip(self._layers, keys, strict=True):
            layer.write(new, slot, self._most)

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
        layers = self.layers
        if self.length < self._shared:
            layers = self._freeze(self.length)
        cache, end = layers[layer], self.length + k.shape[2]
        cache.write(torch.stack((k, v)), self.length, self._most)
        oldest = max(0, end - newest)
        if not cache.frozen and cache.tail is not None:  # the common case, without a loop
            if oldest < cache.first:
                raise LabError(
                    f"layer {layer} keeps the tokens from {cache.first} on, and {oldest} is needed;"
                    ' use KVCache(config, history="full")'
                )
            keys, values = cache.tail[:, :, :, oldest - cache.first : end - cache.first].unbind()
            return (Span(0, self.batch, keys, values),)
        return [
            Span(0, self.batch, *span.unbind(), later=end - begin - span.shape[3])
            for begin, span in cache.spans(oldest, end)
        ]

    def make_room(self) -> list[LayerCache] | None:
        """The layers, whose tails then have room for one more slot.

        None if there are no keys yet, several rows, padding, or keys that a fork reads.
        """
        layers = self.layers
        tail = layers[0].tail
        if self.batch > 1 or self.padding is not None or self._frozen or tail is None:
            return None
        if self.length < self._shared:
            return None
        for layer in layers:
            if not layer.has_room(self.length, 1):
                layer.make_room(tail[:, :, :, :1], self.length, self._most)
        return layers

    def advance(self, seq: int) -> None:
        """Add `seq` to `length`: these tokens are now stored in every layer."""
        self.length += seq

    def truncate(self, length: int) -> None:
        """Drop everything after the first `length` slots.

        Raises:
            LabError: there are fewer, or a sliding layer no longer has what the next token sees.
        """
        if not 0 <= length <= self.length:
            raise LabError(
                f"cannot truncate a cache of {self.length} tokens to {length};"
                f" give 0 to {self.length}"
            )
        for layer in self.layers:
            if layer.reach is not None and 0 < layer.first > length - layer.reach:
                raise LabError(
                    f"cannot truncate to {length} tokens: sliding layers keep the tokens from"
                    f' {layer.first} on; use KVCache(config, history="full")'
                )
        if length < self._frozen:
            self._freeze(length)
        self.length = length

    def fork(self, batch: int | None = None, *, at: int | None = None) -> "KVCache":
        """Create a cache that continues from here (or from slot `at`) and shares the stored keys.

        A cache of one row can be forked into `batch` rows. No key is copied.

        Raises:
            LabError: the slot or the rows do not exist, or the history is "window".
        """
        if self.history == "window":
            raise LabError('cannot fork a cache of windows; use KVCache(config, history="full")')
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
        child._layers = [LayerCache(at, layer.slice_to(at)) for layer in self.layers]
        child.length = child._frozen = child._shared = at
        self._shared = max(self._shared, at)
        return child

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch, in this order.

        Slots that are padding in all of them are dropped, so `length` may decrease.
        """
        chosen, layers, dropped = list(rows), self.layers, 0
        for row in chosen:
            check_index("row", row, self.batch)
        padding = None if self.padding is None else self.padding[chosen]
        if padding is not None:
            dropped = min(int(padding.min()), self.length)
            padding = padding - dropped if padding.max() > dropped else None
        self._layers = [layer.select(chosen, dropped) for layer in layers]
        self.batch, self.padding, self.length = len(chosen), padding, self.length - dropped
        self._frozen, self._shared = max(0, self._frozen - dropped), max(0, self._shared - dropped)

    def _freeze(self, length: int) -> list[LayerCache]:
        """Freeze the first `length` slots, and start a new tail after them."""
        self._layers = [LayerCache(length, layer.slice_to(length)) for layer in self._layers]
        self._frozen = self._shared = length
        return self._layers


class JoinedCaches:
    """The caches of a ragged batch, of any lengths, concatenated along the batch."""

    def __init__(self, caches: Sequence[KVCache]) -> None:
        self.caches, self.samples = caches, None

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
