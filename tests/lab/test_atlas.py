"""The atlas of experts. Every count is compared with plain loops over made-up traces whose experts
depend on a token or a group; then the atlas runs on nano's own routing."""

import time
from collections import Counter
from itertools import combinations
from random import Random

import numpy as np
import pytest
import torch

from oss_lab.analysis.routing.atlas import atlas
from oss_lab.analysis.routing.baselines import predictability
from oss_lab.analysis.routing.coactivation import coactivation, pair_probabilities
from oss_lab.analysis.routing.corpus import Corpus, build_routing_corpus
from oss_lab.analysis.routing.paths import find_neighbors
from oss_lab.analysis.statistics.bootstrap import resample_counts
from oss_lab.errors import LabError
from oss_lab.hooks.selection import Selection
from oss_lab.nano.studies.nominate import trace_routing
from oss_lab.nano.studies.problems import draw_problems
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.sums_and_products import Products
from oss_lab.record.token_labels import TokenLabel
from oss_lab.record.trace import Origin, Trace

EXPERTS, SLOTS, LAYERS, VOCAB = 8, 3, 2, 6
GROUPS = ["a", "b"] * 8
CHANNELS = (None, "analysis", "final")
ORIGIN = Origin(None, "reference", "float32", "cpu", None, (), {})


def make_trace(n, rng, experts=EXPERTS, slots=SLOTS):
    """A trace in which token t uses expert t + 2 in layer 0, and group b uses expert 2 in layer
    1.
    """
    seq = 20 + 3 * n
    tokens = rng.integers(VOCAB, size=seq)
    order = rng.random((LAYERS, seq, experts))
    order[0, range(seq), tokens + 2] = -1
    if GROUPS[n] == "b":
        order[1, :, 2] = -1
    ids = torch.from_numpy(np.argsort(order, -1)[..., :slots].copy())
    labels = tuple(
        TokenLabel(f"t{t}", role="assistant", channel=CHANNELS[k % 3]) for k, t in enumerate(tokens)
    )
    return of_ids(tuple(tokens.tolist()), labels, ids, Selection(("moe.expert_ids",)))


def of_ids(tokens, labels, ids, selection):
    tensors = {f"moe.expert_ids/{layer}": each for layer, each in enumerate(ids)}
    return Trace(tokens, labels, selection, len(ids), 1, tensors, ORIGIN)


@pytest.fixture(scope="module")
def traces():
    rng = np.random.default_rng(0)
    return [make_trace(n, rng) for n in range(len(GROUPS))]


@pytest.fixture(scope="module")
def corpus(traces) -> Corpus:
    return build_routing_corpus(traces, EXPERTS, GROUPS)


def slots_of(traces, layer):
    """(sequence, position, expert) of every slot of a layer, by plain loops."""
    for n, trace in enumerate(traces):
        for position, row in enumerate(trace.tensors[f"moe.expert_ids/{layer}"].tolist()):
            for expert in row:
                yield n, position, expert


def lifts(traces, layer, label):
    """P(label | expert) / P(label) and the count, for every pair that occurs."""
    pairs, experts, labels, total = Counter(), Counter(), Counter(), 0
    for n, position, expert in slots_of(traces, layer):
        what = label(n, position)
        pairs[expert, what] += 1
        experts[expert] += 1
        labels[what] += 1
        total += 1
    return {
        pair: (count, count / experts[pair[0]] / (labels[pair[1]] / total))
        for pair, count in pairs.items()
    }


def test_loads_and_lifts_equal_plain_loops(traces, corpus):
    found = atlas(corpus, minimum=4, top=3, resamples=20)
    assert (found.sequences, found.tokens) == (16, sum(len(trace.tokens) for trace in traces))
    assert found.channels.names == ("analysis", "assistant", "final")
    assert found.groups.names == ("a", "b")
    for layer in range(LAYERS):
        used = Counter(expert for *_, expert in slots_of(traces, layer))
        for expert in range(EXPERTS):
            expected = used[expert] / used.total() * EXPERTS
            assert found.load.value[layer, expert] == pytest.approx(expected)
        by = {
            "token": lifts(traces, layer, lambda n, p: traces[n].tokens[p]),
            "channel": lifts(traces, layer, lambda _, p: CHANNELS[p % 3] or "assistant"),
            "group": lifts(traces, layer, lambda n, _: GROUPS[n]),
        }
        for what, table in (("channel", found.channels), ("group", found.groups)):
            for (expert, name), (_, expected) in by[what].items():
                value = table.lift.value[layer, expert, table.names.index(name)]
                assert value == pytest.approx(expected)
        for expert in range(EXPERTS):
            listed = found.top[layer][expert]
            expected = sorted(
                (
                    lift
                    for (e, _), (count, lift) in by["token"].items()
                    if e == expert and count > 3
                ),
                reverse=True,
            )
            assert [each.lift for each in listed] == pytest.approx(expected[:3])
            for each in listed:
                assert (each.count, each.text) == (
                    by["token"][expert, each.token][0],
                    f"t{each.token}",
                )


def test_planted_experts_are_found(corpus):
    found = atlas(corpus, resamples=200)
    for token in range(VOCAB):
        best, second = found.top[0][token + 2][:2]
        assert best.token == token
        assert best.low > 1.5 > 1.2 > second.low
    group = found.groups.lift
    assert group.low[1, 2, found.groups.names.index("b")] > 1.1
    assert (group.low[0] < 1.1).all()
    assert found.load.low[1, 2] > 1.2


def test_an_interval_is_the_percentiles_of_resampled_sequences(traces, corpus):
    seed, resamples = 3, 40
    found = atlas(corpus, resamples=resamples, seed=seed, minimum=1)
    draws = resample_counts(len(traces), resamples, seed)
    assert draws.sum(1).tolist() == [len(traces)] * (resamples + 1)
    loads, token_lifts = [], []
    for counts in draws[1:].astype(int):
        drawn_traces = [trace for trace, n in zip(traces, counts, strict=True) for _ in range(n)]
        used = Counter(expert for *_, expert in slots_of(drawn_traces, 0))
        loads.append(used[5] / used.total() * EXPERTS)
        of = lifts(drawn_traces, 0, lambda n, p, seen=drawn_traces: seen[n].tokens[p])
        token_lifts.append(of[5, 3][1])
    expected = np.percentile(loads, (2.5, 97.5))
    assert [found.load.low[0, 5], found.load.high[0, 5]] == pytest.approx(expected)
    best = found.top[0][5][0]
    assert (best.low, best.high) == pytest.approx(tuple(np.percentile(token_lifts, (2.5, 97.5))))


def most_likely_experts(counts, use):
    """The most likely experts. Ties are broken by use in the layer, then by number."""
    return sorted(range(EXPERTS), key=lambda e: (-counts[e], -use[e], e))[:SLOTS]


def test_baselines_equal_plain_loops(traces, corpus):
    seed = 5
    found = predictability(corpus, resamples=20, shuffles=3, seed=seed)
    held = np.random.default_rng(seed).permutation(16) >= 8
    assert (found.fitted, found.held_out, found.chance) == (8, 8, SLOTS / EXPERTS)

    def key(n, p):
        return (traces[n].tokens[p - 1] if p else -1), traces[n].tokens[p]

    for layer in range(LAYERS):
        use, by_token, by_bigram = Counter(), {}, {}
        for n, p, expert in slots_of(traces, layer):
            if not held[n]:
                use[expert] += 1
                by_token.setdefault(key(n, p)[1], Counter())[expert] += 1
                by_bigram.setdefault(key(n, p), Counter())[expert] += 1
        right, total = Counter(), 0
        for n, p, expert in slots_of(traces, layer):
            if held[n]:
                total += 1
                for_token = by_token.get(key(n, p)[1], use)
                right["use"] += expert in most_likely_experts(use, use)
                right["token"] += expert in most_likely_experts(for_token, use)
                right["bigram"] += expert in most_likely_experts(
                    by_bigram.get(key(n, p), for_token), use
                )
        assert found.most_used.value[layer] == pytest.approx(right["use"] / total)
        assert found.token.value[layer] == pytest.approx(right["token"] / total)
        assert found.bigram.value[layer] == pytest.approx(right["bigram"] / total)
    for each in (found.most_used, found.token, found.bigram, found.shuffled):
        assert ((each.low <= each.value) & (each.value <= each.high)).all()
    assert found.token.value[0] > found.shuffled.high[0]  # there, each token has its own expert


def test_unseen_tokens_fall_back(traces):
    labels = traces[0].labels
    ids = traces[0].tensors["moe.expert_ids/0"][None, :2]
    selection = Selection(("moe.expert_ids",), positions=(0, 1))
    pair = [of_ids(tokens, labels, ids, selection) for tokens in ((1, 2), (3, 4))]
    found = predictability(build_routing_corpus(pair, EXPERTS), resamples=2)
    assert (found.known_token, found.known_bigram) == (0, 0)
    assert found.token.value == found.bigram.value == found.most_used.value


def enumerate_sets(weights, slots):
    """Probabilities of pairs and of single experts, from all sets, drawn with the product of their
    weights."""
    pairs = np.zeros((len(weights),) * 2)
    for chosen in combinations(range(len(weights)), slots):
        pairs[np.ix_(chosen, chosen)] += np.prod(weights[list(chosen)])
    return pairs / np.trace(pairs) * slots


@pytest.mark.parametrize(("experts", "slots", "spread"), [(8, 4, 2), (6, 2, 1), (7, 3, 0)])
def test_the_null_is_the_distribution_of_independent_sets(experts, slots, spread):
    weights = np.exp(np.random.default_rng(experts).normal(0, spread, (2, experts)))
    expected = np.stack([enumerate_sets(row, slots) for row in weights])
    loads = np.diagonal(expected, axis1=1, axis2=2)
    off = ~np.eye(experts, dtype=bool)
    np.testing.assert_allclose(
        pair_probabilities(loads, slots)[:, off], expected[:, off], atol=1e-5
    )


def test_the_null_handles_experts_of_every_token_and_of_none():
    pairs = pair_probabilities(np.array([[1, 0.5, 0.5, 1, 0]]), 3)[0]
    np.testing.assert_allclose(pairs[0], [0, 0.5, 0.5, 1, 0], atol=1e-5)
    assert not pairs[:, 4].any()


def test_pairs_are_counted_and_a_planted_pair_is_found(traces):
    rng = np.random.default_rng(1)
    changed = []
    for n, trace in enumerate(traces):
        order = rng.random((1, len(trace.tokens), EXPERTS))
        order[0, : 10 + n, [6, 7]] = -1  # either both or neither
        order[0, 10 + n :, [6, 7]] = 2
        ids = torch.from_numpy(np.argsort(order, -1)[..., :SLOTS].copy())
        changed.append(of_ids(trace.tokens, trace.labels, ids, trace.selection))
    found = coactivation(build_routing_corpus(changed, EXPERTS), resamples=20)
    counts, loads = np.zeros((EXPERTS, EXPERTS), int), np.zeros(EXPERTS)
    for trace in changed:
        for row in trace.tensors["moe.expert_ids/0"].tolist():
            for a, b in combinations(row, 2):
                counts[a, b] += 1
                counts[b, a] += 1
            loads[row] += 1
    assert (found.observed[0] == counts).all()
    expected = pair_probabilities(loads[None] / found.tokens, SLOTS)[0] * found.tokens
    off = ~np.eye(EXPERTS, dtype=bool)
    np.testing.assert_allclose(found.expected[0][off], expected[off])
    np.testing.assert_allclose(
        found.ratio.value[0][off], (counts / np.where(off, expected, 1))[off]
    )
    assert found.ratio.low[0, 6, 7] > 1.5
    assert found.ratio.high[0, 0, 6] < 1
    assert np.isnan(np.diagonal(found.ratio.value[0])).all()


def test_pairs_of_independent_choices_are_as_frequent_as_expected():
    rng = np.random.default_rng(2)
    labels, selection = (TokenLabel("x"),) * 500, Selection(("moe.expert_ids",))
    even = [
        of_ids(
            (0,) * 500,
            labels,
            torch.from_numpy(
                np.argsort(np.linspace(0, 1.5, EXPERTS) - rng.gumbel(size=(1, 500, EXPERTS)))[
                    ..., :SLOTS
                ].copy()
            ),
            selection,
        )
        for _ in range(40)
    ]
    found = coactivation(build_routing_corpus(even, EXPERTS), resamples=20)
    off = ~np.eye(EXPERTS, dtype=bool)
    np.testing.assert_allclose(found.ratio.value[0][off], 1, atol=0.08)


def test_neighbors_by_path_equal_plain_loops(traces, corpus):
    found = find_neighbors(corpus, 2, 7, count=5, pairs=4000)
    paths = {
        (n, p): [set(trace.tensors[f"moe.expert_ids/{k}"][p].tolist()) for k in range(LAYERS)]
        for n, trace in enumerate(traces)
        for p in range(len(trace.tokens))
    }

    def shared(a, b):
        return sum(len(x & y) for x, y in zip(paths[a], paths[b], strict=True))

    near = {other: shared((2, 7), other) for other in paths if other != (2, 7)}
    nearest = sorted(near, key=lambda other: -near[other])[:5]
    assert [(each.sequence, each.position) for each in found.nearest] == nearest
    assert [each.shared for each in found.nearest] == [near[other] for other in nearest]
    assert found.as_near == sum(value >= found.nearest[-1].shared for value in near.values())
    assert (found.of.token, found.slots) == (traces[2].tokens[7], LAYERS * SLOTS)
    mean = found.any_pair @ np.arange(found.slots + 1) / found.any_pair.sum()
    exact = np.mean([shared(a, b) for a, b in combinations(paths, 2) if a[0] != b[0]])
    assert mean == pytest.approx(exact, abs=0.1)
    same = found.same_token @ np.arange(found.slots + 1) / found.same_token.sum()
    assert same > mean  # each token has its own expert


def test_a_corpus_of_selected_positions_knows_the_token_before(traces):
    trace = traces[0]
    ids = torch.stack([trace.tensors[f"moe.expert_ids/{k}"][[4, 9]] for k in range(LAYERS)])
    chosen = Selection(("moe.expert_ids",), positions=(4, 9))
    corpus = build_routing_corpus([of_ids(trace.tokens, trace.labels, ids, chosen)], EXPERTS)
    assert corpus.position.tolist() == [4, 9]
    assert corpus.previous.tolist() == [trace.tokens[3], trace.tokens[8]]
    assert (corpus.groups, corpus.group.tolist()) == (("",), [0])


def test_nanos_routing_depends_on_its_tokens(nano):
    tasks = (Products(), Lookup())
    corpus = trace_routing(nano, {task.name: draw_problems(task, 8, Random(0)) for task in tasks})
    assert {"analysis", "final", "user"} <= set(corpus.channels)
    assert corpus.groups == ("look-up", "product")
    found = predictability(corpus, resamples=50)
    assert (found.token.low > found.shuffled.high).all()
    assert (found.shuffled.value > found.chance).all()  # some experts are busier
    one = atlas(corpus, resamples=20)
    assert one.load.value.shape == (4, 32)
    assert one.load.value.mean(1) == pytest.approx(1)


def test_fifty_thousand_tokens_take_seconds():
    rng, seq, sequences = np.random.default_rng(0), 250, 200
    ids = np.argsort(rng.random((4, seq * sequences, 32)), -1)[..., :4]
    token = rng.integers(500, size=seq * sequences)
    corpus = Corpus(
        32, tuple(range(4)), ids, np.repeat(range(sequences), seq),
        np.tile(range(seq), sequences), token, np.roll(token, 1), token % 3, ("a", "b", "c"),
        np.arange(sequences) % 2, ("x", "y"), {t: str(t) for t in range(500)},
    )  # fmt: skip
    began = time.process_time()
    atlas(corpus, resamples=200)
    predictability(corpus)
    coactivation(corpus, resamples=50)
    find_neighbors(corpus, 3, 3)
    assert time.process_time() - began < 20


def test_mistakes_are_one_sentence(traces, corpus):
    other = of_ids(traces[0].tokens, traces[0].labels, [], Selection(("moe.margin",)))
    for call, message in (
        (lambda: build_routing_corpus([], EXPERTS), "no traces"),
        (lambda: build_routing_corpus(traces, EXPERTS, ["a"]), "16 traces and 1 groups"),
        (lambda: build_routing_corpus(traces, 4), "the last is 3"),
        (lambda: build_routing_corpus([*traces, other], EXPERTS), "trace 16 has layers"),
        (lambda: atlas(corpus, top=0), "top is 0"),
        (lambda: atlas(corpus, minimum=0), "minimum is 0"),
        (lambda: atlas(corpus, resamples=0), "resamples is 0"),
        (lambda: predictability(corpus, shuffles=0), "shuffles is 0"),
        (
            lambda: predictability(build_routing_corpus(traces[:1], EXPERTS)),
            "the corpus has one sequence",
        ),
        (
            lambda: find_neighbors(corpus, 0, 999),
            "position 999; the recorded ones are within 0 to 19",
        ),
        (
            lambda: find_neighbors(corpus, 16, 0),
            "sequence 16 is out of range; the corpus has sequences 0 to 15",
        ),
        (lambda: find_neighbors(corpus, 0, 0, count=0), "count is 0"),
    ):
        with pytest.raises(LabError, match=message):
            call()
