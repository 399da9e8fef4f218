"""Keys and values of earlier tokens: appended to, truncated, forked.

Full layers keep every key. Sliding layers keep every key too (`history="full"`: any earlier
position can be truncated to or forked from) or only the window (`history="window"`: the memory
that the architecture promises; only the end can be forked). A fork shares its prefix with its
parent: neither writes into it again, so a fork costs no copy.

A batch of unequal prompts is padded at the left. Slots count from the left edge; a token's
position is its slot minus its row's padding.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError

History = Literal["full", "window"]
Keys = Float[Tensor, "batch kv_head key head_dim"]
GROWTH = 256  # slots by which a buffer grows at least


class LayerCache:
    """All keys and values of one layer: a shared prefix that is never written, and an own tail."""

    def __init__(self) -> None:
        self.prefix: tuple[Keys, Keys] | None = None
        self.buffer: tuple[Keys, Keys] | None = None
        self.used = 0  # slots of the buffer in use

    def append(self, k: Keys, v: Keys, reach: int) -> tuple[Keys, Keys]:
        """Store new keys and values; return the last `reach` of all of them."""
        end = self.used + k.shape[2]
        if self.buffer is None or end > self.buffer[0].shape[2]:
            self._grow(k, end)
        assert self.buffer is not None
        for stored, new in zip(self.buffer, (k, v), strict=True):
            stored[:, :, self.used : end] = new
        self.used = end
        own = min(reach, end)
        tails = (stored[:, :, end - own : end] for stored in self.buffer)
        if own == reach:
            return tuple(tails)
        assert self.prefix is not None
        missing = reach - own
        heads = (part[:, :, part.shape[2] - missing :] for part in self.prefix)
        return tuple(
            torch.cat((head.expand(len(tail), -1, -1, -1), tail), dim=2)
            for head, tail in zip(heads, tails, strict=True)
        )

    def _grow(self, k: Keys, end: int) -> None:
        batch, kv_heads, _, head_dim = k.shape
        capacity = max(end + GROWTH, 2 * self.used)
        grown = tuple(k.new_empty(batch, kv_heads, capacity, head_dim) for _ in range(2))
        if self.buffer is not None:
            for new, old in zip(grown, self.buffer, strict=True):
                new[:, :, : self.used] = old[:, :, : self.used]
        self.buffer = grown

    def truncate(self, length: int) -> None:
        shared = 0 if self.prefix is None else self.prefix[0].shape[2]
        self.used = max(0, length - shared)
        if self.prefix is not None and length < shared:
            self.prefix = tuple(part[:, :, :length] for part in self.prefix)

    def fork(self) -> "LayerCache":
        """Freeze what is stored and share it; both sides go on in buffers of their own."""
        if self.used:
            assert self.buffer is not None
            own = tuple(stored[:, :, : self.used] for stored in self.buffer)
            if self.prefix is not None:
                own = tuple(
                    torch.cat((head.expand(len(tail), -1, -1, -1), tail), dim=2)
                    for head, tail in zip(self.prefix, own, strict=True)
                )
            self.prefix, self.buffer, self.used = own, None, 0
        child = LayerCache()
        child.prefix = self.prefix
        return child

    def select(self, rows: Int[Tensor, "rows"]) -> None:
        """Keep these batch rows only."""
        if self.buffer is not None:
            self.buffer = tuple(stored[rows] for stored in self.buffer)
        if self.prefix is not None and len(self.prefix[0]) > 1:
            self.prefix = tuple(part[rows] for part in self.prefix)

    @property
    def nbytes(self) -> int:
        """Bytes held, a shared prefix included."""
        return sum(part.nbytes for held in (self.prefix, self.buffer) if held for part in held)


class WindowCache(LayerCache):
    """The last `window` keys and values of a sliding layer; tensors are replaced, never written."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def append(self, k: Keys, v: Keys, reach: int) -> tuple[Keys, Keys]:
        stored = (k, v)
        if self.buffer is not None:
            stored = tuple(
                torch.cat((old.expand(len(new), -1, -1, -1), new), dim=2)
                for old, new in zip(self.buffer, stored, strict=True)
            )
        self.buffer = tuple(part[:, :, -self.window :].clone() for part in stored)
        return tuple(part[:, :, part.shape[2] - reach :] for part in stored)

    def truncate(self, length: int) -> None:
        raise AssertionError("a window cannot be truncated; KVCache refuses it first")

    def fork(self) -> "WindowCache":
        child = WindowCache(self.window)
        child.buffer = self.buffer
        return child


class KVCache:
    """The cache of a whole model for `batch` sequences.

    `padding` [batch]: how many slots at the left of each row hold no token.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int = 1,
        *,
        history: History = "full",
        padding: Int[Tensor, "batch"] | None = None,
    ) -> None:
        self.config, self.batch, self.history = config, batch, history
        self.padding = padding
        self.length = 0
        self.layers = [
            WindowCache(window) if history == "window" and window else LayerCache()
            for window in map(config.window, range(config.num_hidden_layers))
        ]

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "rows seq"]:
        """Positions of the next `seq` tokens; rows is 1 without padding."""
        slots = torch.arange(self.length, self.length + seq, device=device)[None]
        return slots if self.padding is None else (slots - self.padding[:, None]).clamp(min=0)

    def reach(self, seq: int, window: int | None) -> int:
        """How many keys, the `seq` new ones included, a layer with this window reads."""
        total = self.length + seq
        return total if window is None else min(total, seq + window - 1)

    def padding_within(self, keys: int, seq: int) -> Int[Tensor, "batch"] | None:
        """How many of the last `keys` slots, after `seq` new ones, are padding, per row."""
        if self.padding is None:
            return None
        return (self.padding - (self.length + seq - keys)).clamp(min=0)

    def advance(self, seq: int) -> None:
        self.length += seq

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` slots."""
        if not 0 <= length <= self.length:
            raise LabError(f"Cannot truncate a cache of {self.length} tokens to {length}.")
        if length == self.length:
            return
        if self.history == "window":
            raise LabError(
                f"This cache keeps only the window of its sliding layers, so it cannot go back "
                f'from {self.length} to {length} tokens; make it with history="full".'
            )
        for layer in self.layers:
            layer.truncate(length)
        self.length = length

    def fork(self, batch: int | None = None, *, at: int | None = None) -> "KVCache":
        """A cache that goes on from here (or from slot `at`) on its own, sharing what is stored.

        A cache of one row can be forked into a `batch` of rows.
        """
        rows = self.batch if batch is None else batch
        if rows != self.batch and self.batch != 1:
            raise LabError(f"Cannot fork a cache of {self.batch} rows into {rows}; select one row.")
        child = KVCache(self.config, rows, history=self.history)
        child.padding = None if self.padding is None else self.padding.expand(rows)
        child.layers = [layer.fork() for layer in self.layers]
        child.length = self.length
        if at is not None:
            child.truncate(at)
        return child

    def select(self, rows: Int[Tensor, "rows"]) -> None:
        """Keep only these rows of the batch, in this order."""
        self.batch = len(rows)
        self.padding = None if self.padding is None else self.padding[rows]
        for layer in self.layers:
            layer.select(rows)

    @property
    def nbytes(self) -> int:
        """Bytes held, shared prefixes included."""
        return sum(layer.nbytes for layer in self.layers)
