"""Caches of different lengths, merged into one: every row continues as if it ran alone.

The model uses all experts, so rounding cannot change a choice of experts.
"""

from dataclasses import replace

import pytest
import torch
from oss_kernels.backends import load_backend

from oss_lab import AblateHead
from oss_lab.engine import batch as batches
from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import KVCache
from oss_lab.engine.choice import Engines
from oss_lab.engine.merging import find_mergers, merge_caches
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.hooks.selection import Selection

WINDOW = 128
LENGTHS = (127, 128, 129, 300, 1)
GIVEN = (5, 17, 3, 40, 22, 9)  # tokens forced on every row


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(
        tiny_config,
        experts_per_token=tiny_config.num_experts,
        sliding_window=WINDOW,
        initial_context_length=512,
    )


@pytest.fixture(scope="module")
def engines(random_model, config):
    return Engines(random_model(config), load_backend("cpu"))


def build_request(length: int, seed: int = 0, **changes) -> Request:
    generator = torch.Generator().manual_seed(length + seed)
    ids = torch.randint(96, (length,), generator=generator).tolist()
    return Request(tuple(ids), max_tokens=len(GIVEN), **changes)


def join_one_by_one(batch, requests):
    """Rows that join one by one and then read the same given tokens."""
    rows = [batch.add([each])[0] for each in requests]
    for row in rows:
        row.forced.extend(GIVEN)
    return rows


@pytest.mark.parametrize("name", ["reference", "kernels"])
def test_merged_rows_have_the_logits_of_single_runs(engines, name, monkeypatch):
    """At the edges of the window, past it, and for a row of one token."""
    monkeypatch.setattr(batches, "MOST_GROUPS", 1)
    monkeypatch.setattr(batches, "find_mergers", lambda lengths: [list(range(len(list(lengths))))])
    engine = getattr(engines, name)
    batch = Batch(engine)
    rows = join_one_by_one(batch, [build_request(length) for length in LENGTHS])
    found = {row: [] for row in rows}
    for _ in GIVEN:
        batch._read()
        for group in batch.groups:
            assert group.logits is not None
            for row, logits in zip(group.rows, group.logits, strict=True):
                found[row].append(logits.float().clone())
        batch.step()
    for row, logits in found.items():
        sequence = Request((*row.request.tokens, *GIVEN[:-1]))
        (expected,) = read_logits(engine, [sequence], last=len(GIVEN))
        torch.testing.assert_close(torch.stack(logits), expected, atol=2e-5, rtol=1e-4)


def run_alone(engine, requested):
    """Log-probabilities of the given tokens, and the recorded tensors."""
    effects = tuple(Effect(each.intervention) for each in requested.effects)
    batch = Batch(engine)
    (row,) = join_one_by_one(batch, [replace(requested, effects=effects)])
    found = [token.logprob for _, token in batch]
    return found, row.recording.tensors() if row.recording else {}


def count_merges(monkeypatch):
    merges = []

    def merge(caches):
        merges.append(len(caches))
        return merge_caches(caches)

    monkeypatch.setattr(batches, "merge_caches", merge)
    return merges


def test_a_recorded_and_a_changed_row_stay_right(engines, monkeypatch):
    """The recorded pattern has an axis of keys, which padding must not enter."""
    merges = count_merges(monkeypatch)
    points = Selection.of(["attn.pattern", "attn.k_rot", "resid.post", "moe.expert_ids"])
    changed = (Effect(AblateHead(layer=0, head=1)),)
    requests = [build_request(length) for length in (70, 80, 90, 100, 110)]
    requests[1] = replace(requests[1], selection=points)
    requests[3] = replace(requests[3], selection=points, effects=changed)
    batch = Batch(engines.reference)
    rows = join_one_by_one(batch, requests)
    found = {row.number: [] for row in rows}
    for row, token in batch:
        found[row.number].append(token.logprob)
    assert merges == [5]
    for row in rows:
        expected, tensors = run_alone(engines.reference, row.request)
        assert found[row.number] == pytest.approx(expected, abs=2e-5)
        for key, x in row.recording.tensors().items() if row.recording else ():
            torch.testing.assert_close(x, tensors[key], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("when", ["merge", "forward"])
def test_an_interrupted_step_leaves_the_batch_unchanged(engines, monkeypatch, when):
    def run(*, interrupt: bool):
        batch, found = Batch(engines.reference), {}
        join_one_by_one(batch, [build_request(length) for length in (70, 80, 90, 100, 110, 300)])
        batch.step()
        if interrupt:
            where = {"merge": (batches, "merge_caches"), "forward": (engines.reference, "forward")}
            with monkeypatch.context() as patch:
                patch.setattr(*where[when], stop)
                with pytest.raises(KeyboardInterrupt):
                    batch.step()
        for row, token in batch:
            found.setdefault(row.number, []).append(token.logprob)
        return found

    def stop(*_, **__):
        raise KeyboardInterrupt

    interrupted, expected = run(interrupt=True), run(interrupt=False)
    assert interrupted.keys() == expected.keys()
    for number, logprobs in expected.items():
        assert interrupted[number] == pytest.approx(logprobs, abs=1e-6)


def test_a_few_groups_are_not_merged_and_a_borrowed_cache_never(engines, monkeypatch):
    monkeypatch.setattr(batches, "MOST_GROUPS", 4)
    merges = count_merges(monkeypatch)
    for lengths in ((70, 80, 90, 100), (20, 70, 80, 90, 100)):
        batch = Batch(engines.reference)
        cache = KVCache(engines.reference.config)
        first = build_request(lengths[0])
        batch.add([first], cache)
        join_one_by_one(batch, [build_request(length) for length in lengths[1:]])
        for _ in batch:
            pass
        assert cache.length == lengths[0] + len(GIVEN) - 1
    assert merges == [4]


def test_padding_that_no_row_needs_is_dropped_before_a_merge(engines):
    engine = engines.reference
    batch = Batch(engine)
    longest, *others = batch.add([build_request(length) for length in (300, 70, 80)])
    batch.remove(longest)
    (one,) = batch.add([build_request(75)])
    caches = [group.cache for group in batch.groups]
    merged = merge_caches(caches)
    assert [each.length for each in caches] == [80, 75]
    assert (merged.length, merged.batch) == (80, 3)
    assert merged.padding is not None
    assert merged.padding.tolist() == [10, 0, 5]
    assert [row.request.tokens for row in (*others, one)] == [
        build_request(length).tokens for length in (70, 80, 75)
    ]
    for layer in merged.layers:
        ((_, span),) = layer.spans(0, 80)
        assert not span[:, 2, :, :5].any()
        assert span[:, 2, :, 5:].all(-1).any(-1).all()


def test_a_merge_reads_forks_and_copies(engines):
    """A fork has several spans; the merged cache can be written without changing its parts."""
    engine = engines.reference
    cache = KVCache(engine.config)
    ids = torch.tensor([build_request(40).tokens])
    engine.forward(ids, cache)
    fork = cache.fork()
    engine.forward(ids[:, :7], fork)
    merged = merge_caches([fork, cache])
    expected = [torch.cat(layer.slice_to(47), dim=3).clone() for layer in fork.layers]
    engine.forward(torch.tensor([[1], [2]]), merged)
    for layer, whole, own in zip(merged.layers, expected, cache.layers, strict=True):
        ((_, span),) = layer.spans(0, 47)
        assert torch.equal(span[:, :1], whole)
        assert torch.equal(span[:, 1:, :, 7:], own.slice_to(40)[0])


def test_lengths_between_the_same_powers_of_two_are_merged():
    assert find_mergers([64, 127, 128, 20, 65]) == [[0, 1, 4]]
    assert find_mergers([3, 2, 8, 15, 100]) == [[0, 1], [2, 3]]
