"""KVCache alone: what it stores, shares, forgets and refuses, and how many bytes it copies.

Each key is its slot number, so the tests can read the slots off the returned keys.
`test_cached_forward.py` tests that the logits are right.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from oss_lab.checkpoint.plan import kv_cache_bytes
from oss_lab.config import GPT_OSS_20B
from oss_lab.engine.cache import JoinedCaches, KVCache
from oss_lab.engine.layer_cache import GROWTH
from oss_lab.errors import LabError
from oss_lab.model.past import Span
from oss_lab.model.transformer import count_keys

DEVICE = torch.device("cpu")


def make_keys(first: int, count: int, batch: int = 1) -> torch.Tensor:
    """Keys [batch, 2, count, 4] whose numbers are their slot, plus 1000 per row."""
    slots = torch.arange(first, first + count).view(1, 1, -1, 1)
    rows = 1000 * torch.arange(batch).view(-1, 1, 1, 1)
    return (slots + rows).expand(batch, 2, count, 4).float()


def slots_of(spans: Sequence[Span], batch: int) -> list[list[int]]:
    """The slots in the spans, per row. Checks that values are the negated keys."""
    found: list[list[int]] = [[] for _ in range(batch)]
    later = sum(span.keys.shape[2] for span in spans)
    for span in spans:
        later -= span.keys.shape[2]
        assert (span.first, span.last, span.later) == (0, batch, later)
        assert torch.equal(span.values, -span.keys)
        for row, slots in zip(found, span.keys[:, 0, :, 0].expand(batch, -1), strict=True):
            row += slots.int().tolist()
    return found


def window_cache(tiny_config, window: int, batch: int = 1) -> KVCache:
    """A cache of windows, for a context of 8,192 tokens; layer 0 is sliding."""
    config = replace(tiny_config, sliding_window=window, initial_context_length=8192)
    assert config.window(0) == window
    return KVCache(config, batch, history="window")


def extend(
    cache: KVCache, count: int, reach: int | None = None, first: int | None = None
) -> list[list[int]]:
    """Append `count` tokens to every layer, as a forward pass does; return the slots that each row
    then reads.

    The tokens are numbered from `first`, by default with their slots.
    """
    end = cache.count_slots(count)
    k = make_keys(cache.length if first is None else first, count, cache.batch)
    read = [
        slots_of(cache.extend(n, k, -k, end if reach is None else reach), cache.batch)
        for n in range(len(cache.layers))
    ]
    cache.advance(count)
    assert all(each == read[0] for each in read)
    assert cache.length == end
    return read[0]


def append_in_order(cache: KVCache, count: int) -> None:
    """Append `count` tokens; check that every layer reads all slots in order."""
    assert extend(cache, count)[0] == list(range(cache.length))


def test_a_layer_returns_the_requested_slots(tiny_config):
    cache = KVCache(tiny_config)
    assert extend(cache, 4) == [[0, 1, 2, 3]]
    assert extend(cache, 1) == [[0, 1, 2, 3, 4]]
    assert extend(cache, 3) == [list(range(8))]
    assert extend(cache, 2, reach=7) == [list(range(3, 10))]


def test_a_layer_grows_past_its_buffer(tiny_config):
    cache = KVCache(tiny_config)
    for _ in range(30):
        append_in_order(cache, 50)
    append_in_order(cache, 1)
    assert cache.length == 1501


def test_new_slots_replace_truncated_ones(tiny_config):
    cache = KVCache(tiny_config)
    append_in_order(cache, 10)
    cache.truncate(4)
    assert extend(cache, 2, first=100) == [[0, 1, 2, 3, 100, 101]]


def test_slots_of_an_interrupted_forward_are_overwritten(tiny_config):
    cache = KVCache(tiny_config)
    append_in_order(cache, 5)
    k = make_keys(100, 300)
    cache.extend(0, k, -k, 305)  # in the first layer only, and beyond its buffer
    assert cache.length == 5
    assert extend(cache, 2) == [list(range(7))]


@pytest.mark.parametrize("at", [None, 12])
def test_parent_and_child_continue_independently(tiny_config, at):
    parent = KVCache(tiny_config)
    append_in_order(parent, 20)
    child = parent.fork(at=at)
    shared = list(range(20 if at is None else at))
    append_in_order(parent, 3)
    assert extend(child, 2, first=500) == [[*shared, 500, 501]]
    append_in_order(parent, 300)  # the parent moves to a larger buffer
    assert extend(child, 1, first=502) == [[*shared, 500, 501, 502]]
    assert (parent.length, child.length) == (323, len(shared) + 3)


class CopiedBytes(TorchDispatchMode):
    """Counts the bytes that operations write, without views and empty buffers."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__:
            self.total += out.nbytes
        return out


def is_view_of(part: torch.Tensor, buffer: torch.Tensor | None) -> bool:
    """Whether a view is inside the memory of a buffer."""
    assert buffer is not None
    storage = buffer.untyped_storage()
    begin = storage.data_ptr()
    return begin <= part.data_ptr() < begin + storage.nbytes()


def test_a_fork_copies_nothing_of_its_prefix(tiny_config):
    copied = []
    for prefix in (10, 3000):
        parent = KVCache(tiny_config)
        append_in_order(parent, prefix)
        buffers = [layer.tail for layer in parent.layers]
        with CopiedBytes() as forking:
            child = parent.fork(at=prefix - 1)
            again = child.fork()
        assert forking.total == 0
        k, v = make_keys(0, 1), -make_keys(0, 1)
        with CopiedBytes() as continuing:
            for n in range(GROWTH + 10):
                for layer, buffer in enumerate(buffers):
                    shared, own = again.extend(layer, k, v, prefix + n)
                    assert is_view_of(shared.keys, buffer)
                    assert is_view_of(shared.values, buffer)
                    assert not is_view_of(own.keys, buffer)
                    assert own.keys.shape[2] == n + 1
                again.advance(1)
        copied.append(continuing.total)
        tail = again.layers[0].tail
        assert tail is not None
        assert tail.shape[3] <= 3 * GROWTH  # room for the new tokens only
    assert copied[0] == copied[1]
    # In each layer a token is stacked and stored; a full tail moves once.
    each = 2 * 2 * (k.nbytes + v.nbytes)
    assert each * (GROWTH + 10) <= copied[0] <= 1.5 * each * (GROWTH + 10)


@pytest.mark.parametrize("below", [0, 4, 9])
def test_a_parent_that_is_truncated_and_written_again_does_not_change_its_child(tiny_config, below):
    parent = KVCache(tiny_config)
    append_in_order(parent, 20)
    child, early = parent.fork(), parent.fork(at=9)
    parent.truncate(below)
    assert extend(parent, 15, first=700) == [[*range(below), *range(700, 715)]]
    assert extend(child, 1) == [list(range(21))]
    assert extend(early, 1) == [list(range(10))]
    child.truncate(below)
    assert extend(child, 2, first=800) == [[*range(below), 800, 801]]
    assert extend(parent, 1, first=715) == [[*range(below), *range(700, 716)]]


def test_a_fork_in_the_past_and_a_fork_of_a_fork(tiny_config):
    parent = KVCache(tiny_config)
    append_in_order(parent, 20)
    early = parent.fork(at=7)
    append_in_order(early, 2)
    later = early.fork()
    later.truncate(5)
    append_in_order(later, 30)
    assert (parent.length, early.length, later.length) == (20, 9, 35)
    append_in_order(parent, 1)
    append_in_order(early, 1)


def test_one_row_forks_into_many_and_rows_are_selected(tiny_config):
    cache = KVCache(tiny_config)
    append_in_order(cache, 5)
    batch = cache.fork(3)
    assert extend(batch, 1, reach=3) == [[3, 4, 5], [3, 4, 1005], [3, 4, 2005]]
    batch.select([2, 1])
    assert batch.batch == 2
    assert extend(batch, 1, reach=3) == [[4, 2005, 6], [4, 1005, 1006]]


def test_a_row_can_be_selected_twice_and_a_missing_row_is_refused(tiny_config):
    cache = KVCache(tiny_config)
    append_in_order(cache, 3)
    with pytest.raises(LabError, match="row 1 is out of range; the cache has only row 0"):
        cache.select([1])
    cache.select([0, 0])
    assert extend(cache, 1, reach=2) == [[2, 3], [2, 1003]]


def test_padding_moves_positions(tiny_config):
    cache = KVCache(tiny_config, 2, padding=torch.tensor([0, 3]))
    assert cache.positions(5, DEVICE).tolist() == [[0, 1, 2, 3, 4], [-3, -2, -1, 0, 1]]
    append_in_order(cache, 5)
    assert cache.positions(1, DEVICE).tolist() == [[5], [2]]
    assert cache.fork().positions(1, DEVICE).tolist() == [[5], [2]]


@pytest.mark.parametrize("is_forked", [False, True])
@pytest.mark.parametrize(("rows", "length", "padding"), [([1], 7, None), ([2, 1], 7, [2, 0])])
def test_padding_of_all_selected_rows_is_dropped(tiny_config, is_forked, rows, length, padding):
    cache = KVCache(tiny_config, 3, padding=torch.tensor([0, 3, 5]))
    append_in_order(cache, 8)
    cache = cache.fork() if is_forked else cache
    append_in_order(cache, 2)
    cache.select(rows)
    assert cache.length == length
    assert (None if cache.padding is None else cache.padding.tolist()) == padding
    assert cache.positions(1, DEVICE).tolist() == [[7 - each] for each in padding or [0]]
    kept = [[1000 * row + slot for slot in range(3, 10)] for row in rows]
    new = [[*each, 50 + 1000 * n] for n, each in enumerate(kept)]
    assert extend(cache, 1, first=50) == new


def test_together_each_cache_has_its_own_rows_and_length(tiny_config):
    long, short = KVCache(tiny_config), KVCache(tiny_config, 2)
    append_in_order(long, 6)
    append_in_order(short, 2)
    both = JoinedCaches([long.fork(), short])
    assert both.count_slots(1) == 7
    assert both.positions(1, DEVICE).tolist() == [[6], [2], [2]]
    for layer, reach in ((0, 7), (1, 3)):
        k = make_keys(100, 1, 3)
        read = [
            (span.first, span.last, span.later, span.keys[:, 0, :, 0].tolist())
            for span in both.extend(layer, k, -k, reach)
        ]
        shared = [0, 1, 2, 3, 4, 5][-(reach - 1) :]
        assert read == [
            (0, 1, 1, [shared]),
            (0, 1, 0, [[100]]),
            (1, 3, 0, [[0, 1, 1100], [1000, 1001, 2100]]),
        ]
    both.advance(1)
    assert (long.length, short.length, both.count_slots(1)) == (6, 3, 8)


@pytest.mark.parametrize("length", [-1, 6])
def test_truncation_and_forks_beyond_the_length_are_refused(tiny_config, length):
    cache = KVCache(tiny_config)
    append_in_order(cache, 5)
    with pytest.raises(
        LabError, match=rf"^cannot truncate a cache of 5 tokens to {length}; give 0 to 5$"
    ):
        cache.truncate(length)
    with pytest.raises(
        LabError, match=rf"^cannot fork a cache of 5 tokens at {length}; give 0 to 5$"
    ):
        cache.fork(at=length)
    assert cache.length == 5


def test_a_batch_cannot_be_forked_into_another_number_of_rows(tiny_config):
    cache = KVCache(tiny_config, 2)
    append_in_order(cache, 3)
    with pytest.raises(LabError, match=r"^cannot fork a cache of 2 rows into 3; select one row$"):
        cache.fork(3)


def append_to_windows(cache: KVCache, count: int) -> None:
    """Append `count` tokens; check that each layer reads what the new tokens see."""
    end = cache.count_slots(count)
    k = make_keys(cache.length, count, cache.batch)
    for n in range(len(cache.layers)):
        newest = count_keys(end, count, cache.config.window(n))
        assert slots_of(cache.extend(n, k, -k, newest), 1) == [list(range(end - newest, end))]
    cache.advance(count)


@pytest.mark.parametrize("window", [1, 8, 128])
def test_windows_have_what_new_tokens_see_and_little_more(tiny_config, window):
    cache = window_cache(tiny_config, window)
    for count in (127, 1, 1, 600, 3, 512, 512, *[1] * (2 * GROWTH + 5), 2500, 1, 1):
        append_to_windows(cache, count)
        assert cache.length < 130 or cache.layers[0].first > 0
        tail = cache.layers[0].tail
        assert tail is not None
        assert tail.shape[3] < window + 2500 + GROWTH
    assert cache.length > 4096
    append_to_windows(cache, GROWTH + window)
    tail = cache.layers[0].tail
    assert tail is not None
    assert tail.shape[3] <= 2 * (window + GROWTH)
    assert cache.layers[1].first == 0


def test_windows_can_undo_their_last_pass_and_no_more(tiny_config):
    """A batch truncates its cache if a step is interrupted."""
    cache = window_cache(tiny_config, 128)
    append_to_windows(cache, 300)
    for n in range(2 * GROWTH):
        count = 1 + n % 3
        for _ in range(2):
            append_to_windows(cache, count)
            cache.truncate(cache.length - count)
        append_to_windows(cache, count)
    before = cache.length
    with pytest.raises(LabError, match=r"^cannot truncate to 100 tokens: .*history=\"full\"\)$"):
        cache.truncate(100)
    assert cache.length == before
    with pytest.raises(LabError, match=r"^cannot fork a cache of windows"):
        cache.fork()


def test_windows_refuse_to_read_what_they_dropped(tiny_config):
    cache = window_cache(tiny_config, 8)
    append_to_windows(cache, 600)
    append_to_windows(cache, GROWTH)
    k = make_keys(cache.length, 1)
    with pytest.raises(LabError, match=r"^layer 0 keeps the tokens from .* and 0 is needed"):
        cache.extend(0, k, -k, cache.count_slots(1))


def test_rows_of_windows_are_selected(tiny_config):
    cache = window_cache(tiny_config, 8, batch=3)
    for count in (600, 300):
        k = make_keys(cache.length, count, 3)
        for n in range(2):
            cache.extend(n, k, -k, count)
        cache.advance(count)
    cache.select([2])
    k = make_keys(cache.length, 1)
    assert slots_of(cache.extend(0, k, -k, 8), 1) == [[*range(2893, 2900), 900]]


def test_a_full_context_of_20b_takes_3_gib():
    """On the meta device, which has shapes and no memory."""
    cache = KVCache(GPT_OSS_20B, history="window")
    k = torch.empty(1, 8, 512, 64, dtype=torch.bfloat16, device="meta")
    for _ in range(131_072 // 512):
        for layer in range(24):
            cache.extend(layer, k, k, 512)
        cache.advance(512)
    total = sum(layer.tail.nbytes for layer in cache.layers if layer.tail is not None)
    promised = kv_cache_bytes(GPT_OSS_20B, 131_072, history="window")
    assert round(promised / 2**30, 1) == 3.0
    assert total <= 1.01 * promised
