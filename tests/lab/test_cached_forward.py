"""However a sequence is fed to the model and whatever the cache keeps, the logits equal one full
forward pass.

The baseline is a single prefill, which `test_model_parity.py` compares with transformers. Sums in
another order differ in the last bits, so there is a tolerance. What must be identical is compared
with `torch.equal`.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from oss_kernels.backends import load_backend
from torch.testing import assert_close

from oss_lab.engine.cache import JoinedCaches, KVCache
from oss_lab.engine.choice import Engines
from oss_lab.engine.read import new_cache, pad_left
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.hooks.points import FORWARD_POINTS, POINTS
from oss_lab.model import Recorder
from oss_lab.model.attention import visible_keys
from oss_lab.model.experts import ExpertCache, PackedExperts
from oss_lab.model.parts import PUBLISHED

SEQ = 90


def assert_same_logits(found: torch.Tensor, expected: torch.Tensor) -> None:
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
    """Three rows without near-ties in any router."""
    return untied_tokens(model, 3, SEQ)


@pytest.fixture(scope="module")
def full_logits(model, tokens):
    return model(tokens)


def feed_in_pieces(model, cache, tokens, sizes):
    """Logits of `tokens`, fed to the cache in pieces of these sizes."""
    return torch.cat([model(piece, cache) for piece in tokens.split(sizes, dim=1)], dim=1)


SPLITS = {
    "token by token": [1] * SEQ,
    "a prompt, then token by token": [41] + [1] * (SEQ - 41),
    "chunks of the window": [16, 16, 16, 16, 16, 10],
    "uneven chunks": [1, 17, 15, 40, 2, 15],
}


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS.keys())
def test_pieces_give_the_same_logits_as_one_prefill(model, config, tokens, full_logits, sizes):
    cache = KVCache(config, 3)
    assert_same_logits(feed_in_pieces(model, cache, tokens, sizes), full_logits)
    assert cache.length == SEQ


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("name", ["reference", "cpu"])
@torch.inference_mode()
def test_windows_give_the_same_logits_bit_by_bit(model, config, tokens, sizes, name, monkeypatch):
    monkeypatch.setattr("oss_lab.engine.layer_cache.GROWTH", 4)
    engine, found = Engines(model, load_backend(name)).main, []
    for history in ("full", "window"):
        cache = KVCache(config, 3, history=history)
        found.append(feed_in_pieces(engine.forward, cache, tokens, sizes))
    assert cache.layers[0].first > 0
    assert torch.equal(*found)


def test_a_forward_that_is_interrupted_leaves_the_cache_as_it_was(
    model, config, tokens, full_logits
):
    def interrupt(point, layer, x):
        if (point, layer) == ("moe.out", 1):
            raise KeyboardInterrupt
        return x

    cache, logits = KVCache(config, 3), []
    for piece in tokens.split(SPLITS["uneven chunks"], dim=1):
        before = cache.length
        with pytest.raises(KeyboardInterrupt):
            model(piece.flip(1), cache, hooks=interrupt)
        assert cache.length == before
        logits.append(model(piece, cache))
    assert_same_logits(torch.cat(logits, dim=1), full_logits)


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 60, SEQ])
def test_a_truncated_cache_continues_like_a_new_one(model, config, tokens, full_logits, at):
    cache = KVCache(config, 3)
    model(tokens.flip(1)[:, :30], cache)  # something else, which truncation must forget
    cache.truncate(0)
    model(tokens, cache)
    cache.truncate(at)
    if at < SEQ:
        assert_same_logits(model(tokens[:, at:], cache), full_logits[:, at:])
    assert cache.length == SEQ


@pytest.mark.parametrize("at", [None, 1, 16, 50, 70])
def test_a_fork_and_its_parent_continue_independently(model, config, tokens, at):
    shared, ours, theirs = tokens[:1, :70], tokens[:1, 70:], tokens[1:2, 70:]
    parent = KVCache(config)
    feed_in_pieces(model, parent, shared, [30, 40])
    child = parent.fork(at=at)
    start = 70 if at is None else at
    by_turns = {"parent": [], "child": []}
    for n in range(20):  # alternately, to reveal a shared buffer
        by_turns["parent"].append(model(ours[:, n : n + 1], parent))
        by_turns["child"].append(model(theirs[:, n : n + 1], child))
    expected = {
        "parent": model(torch.cat((shared, ours), 1))[:, 70:],
        "child": model(torch.cat((shared[:, :start], theirs), 1))[:, start:],
    }
    for name, logits in by_turns.items():
        assert_same_logits(torch.cat(logits, 1), expected[name])


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
        assert_same_logits(model(tokens[2:, :9], cache), expected)


def test_one_prefix_forks_into_a_batch_and_rows_can_be_dropped(model, config, tokens):
    cache = KVCache(config)
    model(tokens[:1, :50], cache)
    batch = cache.fork(3)
    first = model(tokens[:, 50:60], batch)
    keep = [2, 0]
    batch.select(keep)
    second = model(tokens[keep, 60:], batch)
    together = model(torch.cat((tokens[:1, :50].expand(3, -1), tokens[:, 50:]), 1))
    assert_same_logits(first, together[:, 50:60])
    assert_same_logits(second, together[keep, 60:])


def test_left_padded_rows_give_the_same_as_alone(model, config, tokens):
    lengths = (70, 3, 41)
    prompts = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
    padded, padding = pad_left(prompts, tokens.device)
    cache = KVCache(config, 3, padding=padding)
    logits = feed_in_pieces(model, cache, padded, [20, 30, 20])
    following = feed_in_pieces(model, cache, tokens[:, -8:], [1] * 8)
    for row, length in enumerate(lengths):
        alone = model(torch.cat((tokens[row : row + 1, :length], tokens[row : row + 1, -8:]), 1))[0]
        assert_same_logits(logits[row, 70 - length :], alone[:length])
        assert_same_logits(following[row], alone[length:])
    assert logits.isfinite().all()  # including padding, whose values are never read


@pytest.mark.parametrize("sizes", [(8,), (1,) * 8, (3, 5)], ids=["at once", "one by one", "both"])
def test_caches_of_different_lengths_give_the_same_together_and_alone(model, config, tokens, sizes):
    """One with padding, one forked from a prefix, and one shorter than a window."""
    padded, padding = pad_left([tokens[0, :70].tolist(), tokens[1, :33].tolist()], tokens.device)
    two, prefix, short = KVCache(config, 2, padding=padding), KVCache(config), KVCache(config)
    model(padded, two)
    model(tokens[2:, :40], prefix)
    model(tokens[2:, :3], short)
    forks = prefix.fork(2)
    model(tokens[:2, 40:45], forks)
    begun = [
        tokens[0, :70],
        tokens[1, :33],
        *(torch.cat((tokens[2, :40], tokens[row, 40:45])) for row in range(2)),
        tokens[2, :3],
    ]
    new = tokens.flip(0)[[0, 1, 2, 0, 1], :8]
    logits = feed_in_pieces(model, JoinedCaches([two, forks, short]), new, sizes)
    for row, before in enumerate(begun):
        assert_same_logits(logits[row], model(torch.cat((before, new[row]))[None])[0, -8:])
    assert (two.length, forks.length, prefix.length, short.length) == (78, 53, 40, 11)


@pytest.mark.parametrize("last", [0, 1, 7, SEQ, SEQ + 5])
def test_only_the_requested_positions_are_unembedded(model, tokens, full_logits, last):
    kept = model(tokens, last=last)
    assert kept.shape == (3, min(last, SEQ), full_logits.shape[-1])
    assert_same_logits(kept, full_logits[:, SEQ - min(last, SEQ) :])


def test_recording_every_point_changes_no_bit(model, config, tokens, full_logits):
    watch = Recorder(FORWARD_POINTS)
    assert torch.equal(model(tokens, hooks=watch), full_logits)
    layers = range(config.num_hidden_layers)
    expected = {
        (name, layer)
        for name in FORWARD_POINTS
        for layer in (layers if POINTS[name].is_per_layer else [None])
    }
    assert watch.seen.keys() == expected


def test_a_hook_can_change_what_the_forward_continues_with(model, tokens, full_logits):
    def silence(point, layer, x):
        return x * 0 if (point, layer) == ("moe.out", 1) else x

    changed = model(tokens, hooks=silence)
    assert (changed - full_logits).abs().max() > 0.1


def test_patterns_and_sinks_sum_to_one(model, tokens):
    watch = Recorder({"attn.pattern", "attn.sink_mass"})
    model(tokens, hooks=watch)
    total = watch.stack("attn.pattern").sum(-1) + watch.stack("attn.sink_mass")
    assert_same_logits(total, torch.ones_like(total))


@pytest.mark.parametrize("matrices", [0, 1, 5])
def test_a_small_expert_cache_changes_no_bit_and_stays_within_its_bytes(
    config, random_model, tokens, full_logits, matrices
):
    model = random_model(config)
    one = 2 * config.intermediate_size * config.hidden_size * 4  # the larger of the two kinds
    budget = matrices * one
    cache = ExpertCache(budget)
    largest = 0
    for module in model.modules():
        if isinstance(module, PackedExperts):
            module.cache = cache

    def watch(point, layer, x):
        nonlocal largest
        largest = max(largest, cache.bytes)
        return x

    assert torch.equal(model(tokens, hooks=watch), full_logits)
    assert torch.equal(model(tokens, hooks=watch), full_logits)
    assert largest <= budget
    assert cache.bytes == sum(matrix.nbytes for matrix in cache._matrices.values())


def test_an_unbounded_expert_cache_dequantizes_each_matrix_once(config, random_model, tokens):
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


@pytest.mark.parametrize("is_inference", [False, True])
def test_an_edit_of_packed_experts_takes_effect(
    config, random_model, tokens, full_logits, is_inference
):
    with torch.inference_mode(is_inference):
        model = random_model(config)
    assert torch.equal(model(tokens), full_logits)
    for module in model.modules():
        if isinstance(module, PackedExperts):
            assert module.blocks.is_inference() == is_inference
            with torch.inference_mode(is_inference):
                module.blocks.zero_()
    assert (model(tokens) - full_logits).abs().max() > 0.1


def replace_blocks(bank):
    bank.blocks = torch.zeros_like(bank.blocks)


def assign_data(bank):
    bank.blocks.data = torch.zeros_like(bank.blocks)


def load_blocks(bank):
    bank.load_state_dict({"blocks": torch.zeros_like(bank.blocks), "scales": bank.scales})


@pytest.mark.parametrize(
    "edit", [replace_blocks, assign_data, load_blocks, lambda bank: bank.scales.sub_(3)]
)
def test_editing_a_copy_leaves_the_original_unchanged(
    config, random_model, tokens, full_logits, edit
):
    """For comparing a model with an edited copy: each has its own expert cache."""
    model = random_model(config)
    assert torch.equal(model(tokens), full_logits)
    edited = deepcopy(model)
    for module in edited.modules():
        if isinstance(module, PackedExperts):
            edit(module)
    assert (edited(tokens) - full_logits).abs().max() > 0.1
    assert torch.equal(model(tokens), full_logits)
    for module in model.modules():
        if isinstance(module, PackedExperts):
            edit(module)
    assert torch.equal(model(tokens), edited(tokens))


def test_windows_are_kept_unless_a_learner_replaces_the_mask(model):
    assert new_cache(ReferenceEngine(model), 1, None).history == "window"
    parts = replace(PUBLISHED, visible_keys=lambda *args: visible_keys(*args))
    assert new_cache(ReferenceEngine(model.with_parts(parts)), 1, None).history == "full"
