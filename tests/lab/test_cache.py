"""KVCache by itself: what it stores, shares, forgets and refuses, and how many bytes it holds.

Keys are numbered by their slot, so that what comes back can be read off. That the logits are right
is in `test_cached_forward.py`.
"""

import pytest
import torch

from oss_lab.engine.cache import KVCache, LayerCache, WindowCache
from oss_lab.errors import LabError


def numbered(first: int, count: int, batch: int = 1) -> torch.Tensor:
    """Keys [batch, 2, count, 4] whose numbers are their slot, plus 1000 per row."""
    slots = torch.arange(first, first + count).view(1, 1, -1, 1)
    rows = 1000 * torch.arange(batch).view(-1, 1, 1, 1)
    return (slots + rows).expand(batch, 2, count, 4).float()


def append(cache: LayerCache, first: int, count: int, reach: int, batch: int = 1):
    """The slots that the layer then reads, per row; values are the negated keys."""
    k, v = cache.append(numbered(first, count, batch), -numbered(first, count, batch), reach)
    assert torch.equal(v, -k)
    assert k.shape == (batch, 2, reach, 4)
    return k[:, 0, :, 0].int().tolist()


def feed(cache: KVCache, count: int) -> None:
    """Append `count` tokens to every layer, as a forward does."""
    config, start = cache.config, cache.length
    for n, layer in enumerate(cache.layers):
        reach = cache.reach(count, config.window(n))
        read = append(layer, start, count, reach, cache.batch)
        assert read[0] == list(range(start + count - reach, start + count))
    cache.advance(count)


@pytest.mark.parametrize("cache", [LayerCache(), WindowCache(6)], ids=["full", "window"])
def test_a_layer_gives_back_the_slots_it_is_asked_for(cache):
    assert append(cache, 0, 4, 4) == [[0, 1, 2, 3]]
    assert append(cache, 4, 1, 5) == [[0, 1, 2, 3, 4]]
    assert append(cache, 5, 3, 8) == [list(range(8))]
    assert append(cache, 8, 2, 7) == [list(range(3, 10))]


def test_a_full_layer_grows_past_its_buffer():
    cache = LayerCache()
    for slot in range(0, 1500, 50):
        append(cache, slot, 50, slot + 50)
    assert append(cache, 1500, 1, 1501) == [list(range(1501))]


def test_truncation_forgets_and_new_slots_take_the_place():
    cache = LayerCache()
    append(cache, 0, 10, 10)
    cache.truncate(4)
    assert append(cache, 100, 2, 6) == [[0, 1, 2, 3, 100, 101]]


def test_a_fork_shares_its_prefix_without_a_copy(tiny_config):
    parent = KVCache(tiny_config)
    feed(parent, 20)
    child = parent.fork()
    ours, theirs = parent.layers[1].prefix, child.layers[1].prefix
    assert ours is not None
    assert theirs is not None
    assert ours[0].data_ptr() == theirs[0].data_ptr()
    feed(parent, 3)
    assert (parent.length, child.length) == (23, 20)
    feed(child, 5)
    assert append(child.layers[1], 25, 1, 26) == [list(range(26))]


def test_a_fork_in_the_past_and_a_fork_of_a_fork(tiny_config):
    parent = KVCache(tiny_config)
    feed(parent, 20)
    early = parent.fork(at=7)
    feed(early, 2)
    later = early.fork()
    later.truncate(5)
    feed(later, 30)
    assert (parent.length, early.length, later.length) == (20, 9, 35)
    feed(parent, 1)
    feed(early, 1)


@pytest.mark.parametrize("history", ["full", "window"])
def test_one_row_forks_into_many_and_rows_are_selected(tiny_config, history):
    cache = KVCache(tiny_config, history=history)
    feed(cache, 5)
    batch = cache.fork(3)
    sliding = batch.layers[0]
    assert append(sliding, 5, 1, 3, batch=3) == [[3, 4, 5], [3, 4, 1005], [3, 4, 2005]]
    batch.select(torch.tensor([2, 1]))
    assert batch.batch == 2
    assert append(sliding, 6, 1, 3, batch=2) == [[4, 2005, 6], [4, 1005, 1006]]


def test_padding_moves_positions_and_hides_slots(tiny_config):
    cache = KVCache(tiny_config, 2, padding=torch.tensor([0, 3]))
    device = torch.device("cpu")
    assert cache.positions(5, device).tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 0, 1]]
    feed(cache, 5)
    assert cache.positions(1, device).tolist() == [[5], [2]]
    for keys, padded in ((6, [0, 3]), (4, [0, 1]), (2, [0, 0])):
        within = cache.padding_within(keys, 1)
        assert within is not None
        assert within.tolist() == padded
    cache.select(torch.tensor([1]))
    assert cache.positions(1, device).tolist() == [[2]]
    assert KVCache(tiny_config).padding_within(6, 1) is None


@pytest.mark.parametrize("length", [-1, 6])
def test_truncation_outside_what_is_there_is_refused(tiny_config, length):
    cache = KVCache(tiny_config)
    feed(cache, 5)
    with pytest.raises(LabError, match=rf"^cannot truncate a cache of 5 tokens to {length}$"):
        cache.truncate(length)
    assert cache.length == 5


def test_a_windowed_cache_refuses_the_past_and_says_what_to_do(tiny_config):
    cache = KVCache(tiny_config, history="window")
    feed(cache, 20)
    sentence = r'from 20 to 12 tokens; make it with history="full"$'
    with pytest.raises(LabError, match=sentence):
        cache.truncate(12)
    with pytest.raises(LabError, match=sentence):
        cache.fork(at=12)
    cache.truncate(20)
    assert cache.fork(at=20).length == cache.fork().length == 20
    feed(cache, 1)  # refusals changed nothing


def test_a_batch_cannot_be_forked_into_another_number_of_rows(tiny_config):
    cache = KVCache(tiny_config, 2)
    feed(cache, 3)
    with pytest.raises(LabError, match=r"^cannot fork a cache of 2 rows into 3; select one row$"):
        cache.fork(3)


def test_windowed_layers_hold_their_window_and_no_more(tiny_config):
    cache = KVCache(tiny_config, history="window")
    slot = 2 * tiny_config.num_key_value_heads * tiny_config.head_dim * 4  # keys and values
    sliding, full = cache.layers
    for _ in range(40):
        feed_real(cache, 25)
        assert sliding.nbytes == slot * min(cache.length, tiny_config.sliding_window)
        assert full.nbytes >= slot * cache.length
    assert cache.nbytes == sliding.nbytes + full.nbytes


def feed_real(cache: KVCache, count: int) -> None:
    """As `feed`, with keys of the configuration's own shape."""
    config = cache.config
    k = torch.zeros(cache.batch, config.num_key_value_heads, count, config.head_dim)
    for n, layer in enumerate(cache.layers):
        layer.append(k, k, cache.reach(count, config.window(n)))
    cache.advance(count)
