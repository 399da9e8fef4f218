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
KeysValues = Float[Tensor, "2 batch kv_head key head_dim"]
GROWTH = 256  # slots by which a buffer grows at least


class LayerCache:
    """All keys and values of one layer: a shared prefix that is never written, and an own tail."""

    def __init__(self) -> None:
        self.prefix: KeysValues | None = None
        self.buffer: KeysValues | None = None
        self.used = 0  # slots of the buffer in use

    def append(self, k: Keys, v: Keys, reach: int) -> tuple[Keys, Keys]:
        """Store new keys and values; return the last `reach` of all of them."""
        new = torch.stack((k, v))
        end = self.used + k.shape[2]
        buffer = self._with_room(new, end)
        buffer[:, :, :, self.used : end] = new
        self.buffer, self.used = buffer, end
        read = buffer[:, :, :, max(0, end - reach) : end]
        if self.prefix is not None and reach > end:
            shared = self.prefix[:, :, :, self.prefix.shape[3] - (reach - end) :]
            read = _joined(shared, read)
        keys, values = read.unbind()
        return keys, values

    def _with_room(self, new: KeysValues, end: int) -> KeysValues:
        """The buffer, moved to a larger one where `end` slots do not fit."""
        if self.buffer is not None and end <= self.buffer.shape[3]:
            return self.buffer
        _, batch, kv_heads, _, head_dim = new.shape
        grown = new.new_empty(2, batch, kv_heads, max(end + GROWTH, 2 * self.used), head_dim)
        if self.buffer is not None:
            grown[:, :, :, : self.used] = self.buffer[:, :, :, : self.used]
        return grown

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` slots."""
        shared = 0 if self.prefix is None else self.prefix.shape[3]
        self.used = max(0, length - shared)
        if self.prefix is not None:
            self.prefix = self.prefix[:, :, :, :length]

    def fork(self) -> "LayerCache":
        """Freeze what is stored and share it; both sides go on in buffers of their own."""
        if self.buffer is not None and self.used:
            own = self.buffer[:, :, :, : self.used]
            self.prefix = own if self.prefix is None else _joined(self.prefix, own)
            self.buffer, self.used = None, 0
        child = LayerCache()
        child.prefix = self.prefix
        return child

    def select(self, rows: Int[Tensor, "rows"]) -> None:
        """Keep these batch rows only; a prefix of one row serves any."""
        if self.buffer is not None:
            self.buffer = self.buffer[:, rows]
        if self.prefix is not None and self.prefix.shape[1] > 1:
            self.prefix = self.prefix[:, rows]

    @property
    def nbytes(self) -> int:
        """Bytes held, a shared prefix included."""
        return sum(held.nbytes for held in (self.prefix, self.buffer) if held is not None)


class WindowCache(LayerCache):
    """The last `window` keys and values of a sliding layer; they are replaced, never written.

    `KVCache` refuses to truncate it.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def append(self, k: Keys, v: Keys, reach: int) -> tuple[Keys, Keys]:
        held = torch.stack((k, v))
        if self.buffer is not None:
            held = _joined(self.buffer, held)
        self.buffer = held[:, :, :, -self.window :].clone()
        keys, values = held[:, :, :, held.shape[3] - reach :].unbind()
        return keys, values

    def fork(self) -> "WindowCache":
        child = WindowCache(self.window)
        child.buffer = self.buffer
        return child


def _joined(first: KeysValues, then: KeysValues) -> KeysValues:
    """One after the other; a single row of `first` is repeated for every row of `then`."""
    return torch.cat((first.expand(-1, then.shape[1], -1, -1, -1), then), dim=3)


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
        self.config, self.batch = config, batch
        self.history: History = history
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
            raise LabError(f"cannot truncate a cache of {self.length} tokens to {length}")
        if length == self.length:
            return
        if self.history == "window":
            raise LabError(
                f"this cache keeps only the window of its sliding layers, so it cannot go back "
                f'from {self.length} to {length} tokens; make it with history="full"'
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
            raise LabError(f"cannot fork a cache of {self.batch} rows into {rows}; select one row")
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
