"""However a sequence is fed, and whatever is kept of it, its logits are those of one forward.

Prefill in one go is the yardstick; `test_model_parity.py` holds that one to transformers. Sums in
another order differ in the last bits, hence a tolerance; what must not change a bit is compared
with `torch.equal`.
"""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import pad_left
from oss_lab.hooks.points import POINTS, TAPPED
from oss_lab.model import Recorder
from oss_lab.model.experts import ExpertCache, PackedExperts

SEQ = 90


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert_close(found, expected, atol=2e-5, rtol=0.0)


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(
        tiny_config, num_hidden_layers=3, sliding_window=16, num_experts=8, layer_types=()
    )


@pytest.fixture(scope="module")
def model(config, random_model):
    return random_model(config)


@pytest.fixture(scope="module")
def tokens(model, untied_tokens):
    """Three rows, none of which has a near-tied router."""
    return untied_tokens(model, 3, SEQ)


@pytest.fixture(scope="module")
def whole(model, tokens):
    return model(tokens)


def fed(model, cache, tokens, sizes):
    """Logits of `tokens`, given to the cache in pieces of these sizes."""
    return torch.cat([model(piece, cache) for piece in tokens.split(sizes, dim=1)], dim=1)


SPLITS = {
    "token by token": [1] * SEQ,
    "a prompt, then token by token": [41] + [1] * (SEQ - 41),
    "chunks of the window": [16, 16, 16, 16, 16, 10],
    "uneven chunks": [1, 17, 15, 40, 2, 15],
}


@pytest.mark.parametrize("history", ["full", "window"])
@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS.keys())
def test_pieces_give_what_one_prefill_gives(model, config, tokens, whole, sizes, history):
    cache = KVCache(config, 3, history=history)
    same(fed(model, cache, tokens, sizes), whole)
    assert cache.length == SEQ


def test_a_windowed_cache_computes_the_same_numbers_as_a_full_one(model, config, tokens):
    pieces = SPLITS["a prompt, then token by token"]
    full = fed(model, KVCache(config, 3), tokens, pieces)
    windowed = fed(model, KVCache(config, 3, history="window"), tokens, pieces)
    same(full, windowed)


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 60, SEQ])
def test_a_truncated_cache_goes_on_like_a_fresh_one(model, config, tokens, whole, at):
    cache = KVCache(config, 3)
    model(tokens.flip(1)[:, :30], cache)  # something else, which truncation must forget
    cache.truncate(0)
    model(tokens, cache)
    cache.truncate(at)
    if at < SEQ:
        same(model(tokens[:, at:], cache), whole[:, at:])
    assert cache.length == SEQ


@pytest.mark.parametrize("at", [None, 1, 16, 50, 70])
def test_a_fork_and_its_parent_go_on_without_touching_each_other(model, config, tokens, at):
    shared, ours, theirs = tokens[:1, :70], tokens[:1, 70:], tokens[1:2, 70:]
    parent = KVCache(config)
    fed(model, parent, shared, [30, 40])
    child = parent.fork(at=at)
    start = 70 if at is None else at
    by_turns = {"parent": [], "child": []}
    for n in range(20):  # alternately, so that a shared buffer would show
        by_turns["parent"].append(model(ours[:, n : n + 1], parent))
        by_turns["child"].append(model(theirs[:, n : n + 1], child))
    expected = {
        "parent": model(torch.cat((shared, ours), 1))[:, 70:],
        "child": model(torch.cat((shared[:, :start], theirs), 1))[:, start:],
    }
    for name, logits in by_turns.items():
        same(torch.cat(logits, 1), expected[name])


def test_a_fork_of_a_fork_and_a_truncation_into_the_shared_prefix(model, config, tokens):
    first = KVCache(config)
    model(tokens[:1, :40], first)
    second = first.fork()
    model(tokens[1:2, :20], second)
    third = second.fork(at=50)
    second.truncate(30)
    for cache, before in (
        (second, tokens[:1, :30]),
        (third, torch.cat((tokens[:1, :40], tokens[1:2, :10]), 1)),
        (first, tokens[:1, :40]),
    ):
        expected = model(torch.cat((before, tokens[2:, :9]), 1))[:, -9:]
        same(model(tokens[2:, :9], cache), expected)


@pytest.mark.parametrize("history", ["full", "window"])
def test_one_prefix_forks_into_a_batch_and_rows_can_be_dropped(model, config, tokens, history):
    cache = KVCache(config, history=history)
    model(tokens[:1, :50], cache)
    batch = cache.fork(3)
    first = model(tokens[:, 50:60], batch)
    keep = torch.tensor([2, 0])
    batch.select(keep)
    second = model(tokens[keep, 60:], batch)
    together = model(torch.cat((tokens[:1, :50].expand(3, -1), tokens[:, 50:]), 1))
    same(first, together[:, 50:60])
    same(second, together[keep, 60:])


@pytest.mark.parametrize("history", ["full", "window"])
def test_rows_padded_on_the_left_are_what_they_are_alone(model, config, tokens, history):
    lengths = (70, 3, 41)
    prompts = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
    padded, padding = pad_left(prompts, tokens.device)
    cache = KVCache(config, 3, history=history, padding=padding)
    logits = fed(model, cache, padded, [20, 30, 20])
    following = fed(model, cache, tokens[:, -8:], [1] * 8)
    for row, length in enumerate(lengths):
        alone = model(torch.cat((tokens[row : row + 1, :length], tokens[row : row + 1, -8:]), 1))[0]
        same(logits[row, 70 - length :], alone[:length])
        same(following[row], alone[length:])
    assert logits.isfinite().all()  # padding too: what is there is never looked at


@pytest.mark.parametrize("last", [0, 1, 7, SEQ, SEQ + 5])
def test_only_the_asked_for_positions_are_unembedded(model, tokens, whole, last):
    kept = model(tokens, last=last)
    assert kept.shape == (3, min(last, SEQ), whole.shape[-1])
    same(kept, whole[:, SEQ - min(last, SEQ) :])


def test_recording_every_point_changes_no_bit(model, config, tokens, whole):
    watch = Recorder(TAPPED)
    assert torch.equal(model(tokens, taps=watch), whole)
    layers = range(config.num_hidden_layers)
    expected = {
        (name, layer) for name in TAPPED for layer in (layers if POINTS[name].layered else [None])
    }
    assert watch.seen.keys() == expected


def test_a_tap_can_change_what_the_forward_goes_on_with(model, tokens, whole):
    def silenced(layer):
        return lambda name, x: x * 0 if name == "moe.out" and layer == 1 else x

    changed = model(tokens, taps=silenced)
    assert (changed - whole).abs().max() > 0.1


def test_patterns_and_sinks_share_one(model, tokens):
    watch = Recorder({"attn.pattern", "attn.sink_mass"})
    model(tokens, taps=watch)
    total = watch.stacked("attn.pattern").sum(-1) + watch.stacked("attn.sink_mass")
    assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("matrices", [0, 1, 5])
def test_a_small_expert_cache_changes_no_bit_and_stays_within_its_bytes(
    config, random_model, tokens, whole, matrices
):
    model = random_model(config)
    one = 2 * config.intermediate_size * config.hidden_size * 4  # the larger of the two kinds
    budget = matrices * one
    cache = ExpertCache(budget)
    largest = 0
    for module in model.modules():
        if isinstance(module, PackedExperts):
            module.cache = cache

    def watch(layer):
        nonlocal largest
        largest = max(largest, cache.bytes)
        return lambda name, x: x

    assert torch.equal(model(tokens, taps=watch), whole)
    assert torch.equal(model(tokens, taps=watch), whole)
    assert largest <= budget
    assert cache.bytes == sum(matrix.nbytes for matrix in cache._matrices.values())


def test_an_unbounded_expert_cache_dequantises_each_matrix_once(config, random_model, tokens):
    model = random_model(config)
    cache = ExpertCache()
    for module in model.modules():
        if isinstance(module, PackedExperts):
            module.cache = cache
    model(tokens)
    used = dict(cache._matrices)
    model(tokens)
    assert all(cache._matrices[key] is matrix for key, matrix in used.items())
    assert len(cache._matrices) <= 2 * config.num_hidden_layers * config.num_experts
