"""The sink report: its figures worked out by hand, planted behaviors found, chance separated from
cause."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import oss_lab
from oss_lab.analysis.sinks import report as sinks
from oss_lab.analysis.sinks.behavior import SETTLED
from oss_lab.analysis.sinks.report import QUANTILES, sink_report
from oss_lab.analysis.statistics.bootstrap import quotient_interval
from oss_lab.analysis.statistics.explained import explain_variance
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.lab import Lab

TEXT = (
    "<|start|>user<|message|>what is it?<|end|><|start|>assistant<|channel|>analysis<|message|>{}"
    "<|end|><|start|>assistant<|channel|>final<|message|>it<|return|>"
)


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


@pytest.fixture(scope="module")
def traces(lab):
    """Six conversations of at least 62 tokens."""
    draw = np.random.default_rng(0)
    words = ["".join(draw.choice(list("abcdefgh"), 20 + 3 * n)) for n in range(6)]
    ids = [lab.tokenizer.encode(TEXT.format(word), allowed_special="all") for word in words]
    return [lab.trace(each, sinks.POINTS) for each in ids]


def test_every_mean_is_the_mean_of_its_tokens(lab, traces):
    report = sink_report(lab.config, traces)
    rows = []  # token by token, as in a list written by hand
    for trace in traces:
        for layer in range(2):
            for n, label in enumerate(trace.labels):
                for head in range(4):
                    mass = float(trace.tensor("attn.sink_mass", layer)[n, head])
                    channel = label.channel or label.role or "between messages"
                    rows.append((layer, head, n, channel, label.part, mass))
    for layer in range(2):
        for head in range(4):
            mine = [row for row in rows if row[:2] == (layer, head)]
            masses = np.array([row[5] for row in mine])
            assert report.mean[layer, head] == pytest.approx(masses.mean())
            assert report.spread[layer, head] == pytest.approx(masses.std())
            expected = np.quantile(masses, QUANTILES)
            np.testing.assert_allclose(report.quantiles[:, layer, head], expected)
            for which, grouped in ((3, report.by_channel), (4, report.by_part)):
                for n, name in enumerate(grouped.names):
                    part = [row[5] for row in mine if row[which] == name]
                    assert grouped.mean[n, layer, head] == pytest.approx(np.mean(part))
                    assert grouped.tokens[n] == len(part)
            settled = np.array([row[5] for row in mine if row[2] >= SETTLED])
            assert report.often_some[layer, head] == pytest.approx((settled >= 0.1).mean())
            assert report.often_all[layer, head] == pytest.approx((settled >= 0.9).mean())
    assert {"user", "analysis", "final"} <= set(report.by_channel.names)
    assert set(report.by_part.names) == {"content", "format"}
    assert (report.sequences, report.tokens) == (6, sum(len(t.tokens) for t in traces))
    assert (report.interval[0] < report.mean).all()
    assert (report.mean < report.interval[1]).all()
    stored = torch.stack([block.attn.sinks for block in lab.model.block])
    np.testing.assert_allclose(report.sink, stored.numpy(), rtol=1e-6)


def test_early_positions_have_few_keys(lab, traces):
    report = sink_report(lab.config, traces)
    names = ("0", "1", "2 to 3", "4 to 7", "8 to 15", "16 to 31", "32 to 63", "64 to 127")
    assert report.by_position.names == names[: len(report.by_position.names)]
    assert report.keys[:4, 0].tolist() == [1, 2, 3.5, 6.5]  # layer 0 is sliding, layer 1 is full
    assert report.keys[5:, 0].tolist() == [8] * len(report.keys[5:])
    assert report.keys[5, 1] == np.mean(range(17, 33))
    for layer in range(2):
        expected = 1 / (1 + np.exp(-report.sink[layer]))
        np.testing.assert_allclose(report.if_scores_were_0[0, layer], expected)
        first = [trace.tensor("attn.sink_mass", layer)[0] for trace in traces]
        mean = torch.stack(first).double().mean(0)
        np.testing.assert_allclose(report.by_position.mean[0, layer], mean, rtol=1e-6)


def plant_behaviors(trace, seed):
    """The trace with sink masses that show the five behaviors, one head each, in layer 0."""
    draw = np.random.default_rng(seed)
    n = len(trace.tokens)
    noise = draw.uniform(-0.02, 0.02, (n, 4))
    place = np.log2(1 + np.arange(n))
    token = np.array(trace.tokens)
    mass = np.stack(
        [
            np.full(n, 0.97),  # idle
            np.full(n, 0.03),  # rarely
            0.9 - 0.1 * place,  # by position
            0.2 + 0.5 * (token % 3 == 0),  # by content
        ],
        axis=1,
    )
    other = np.stack([draw.uniform(0.1, 0.8, n), *[np.full(n, 0.5)] * 3], axis=1)
    layers = [torch.tensor(mass + noise).float(), torch.tensor(other).float()]
    tensors = {f"attn.sink_mass/{layer}": each for layer, each in enumerate(layers)}
    return replace(trace, tensors={**trace.tensors, **tensors})


def test_planted_behaviors_are_identified(lab, traces):
    made = [plant_behaviors(trace, seed) for seed, trace in enumerate(traces)]
    report = sink_report(lab.config, made)
    assert report.behavior[0] == ("idle", "seldom", "position-gated", "content-gated")
    assert report.behavior[1] == ("neither",) * 4  # noise, and a constant
    content = report.explained["token beside position"]
    assert content.share[0, 3] > 0.9
    assert content.interval[0, 0, 3] <= content.share[0, 3] <= content.interval[1, 0, 3]
    assert report.explained["position"].share[0, 2] > 0.7
    for found in report.explained.values():
        assert abs(found.excess[1, 0]) < 0.1
        assert (found.share[1, 1:] == 0).all()
        assert (found.by_chance <= found.chance_high + 1e-12).all()
    again = sink_report(lab.config, made)
    assert again.behavior == report.behavior
    np.testing.assert_array_equal(again.interval, report.interval)


def predict_by_loop(values, label, sequence):
    """Each token's prediction by a loop over all others."""
    n = len(values)
    predicted = np.empty(n)
    for i in range(n):
        rest = [j for j in range(n) if sequence[j] != sequence[i]]
        alike = [values[j] for j in rest if label[j] == label[i]]
        predicted[i] = np.mean(alike or [values[j] for j in rest])
    return predicted


@pytest.mark.parametrize("beside", [False, True])
def test_explained_variance_equals_a_loop_over_tokens(beside):
    draw = np.random.default_rng(2)
    sequence = np.repeat(np.arange(5), [9, 4, 12, 7, 10])
    label, other = draw.integers(0, 6, 42), draw.integers(0, 3, 42)
    label[3] = 77  # occurs in no other sequence
    values = draw.normal(size=(42, 2)) + label[:, None] % 6 + 2 * other[:, None]
    found = explain_variance(values, label, sequence, beside=other if beside else None, shuffles=3)
    for column in range(2):
        x = values[:, column]
        centered = x - predict_by_loop(x, np.zeros(42), sequence)
        rest = centered - predict_by_loop(centered, other, sequence) if beside else centered
        part = rest if beside else x
        left = part - predict_by_loop(part, label, sequence)
        share = ((rest**2).sum() - (left**2).sum()) / (centered**2).sum()
        assert found.share[column] == pytest.approx(share)
        assert 0.02 < share < 0.9


def test_a_label_with_many_kinds_explains_no_noise():
    """Fitted on the same sequences, 300 kinds explain 30% of the noise in 1,000 tokens."""
    draw = np.random.default_rng(1)
    sequence = np.repeat(np.arange(20), 50)
    noise, label = draw.normal(size=(1000, 8)), draw.integers(0, 300, 1000)
    found = explain_variance(noise, label, sequence)
    means = np.stack([noise[label == kind].mean(0) for kind in label])
    assert 1 - ((noise - means) ** 2).sum() / (noise**2).sum() > 0.25
    assert (found.share < 0.05).all()
    assert (np.abs(found.excess) < 0.15).all()


def test_intervals_have_nominal_coverage_and_resample_full_sequences():
    """Tokens of a sequence share an offset. Resampling single tokens would give far too narrow
    intervals."""
    draw, covered, alone = np.random.default_rng(3), 0, 0
    for seed in range(150):
        sizes = draw.integers(5, 40, 30)
        sums = sizes * draw.normal(2.0, 1.0, 30) + draw.normal(0, 1, 30) * np.sqrt(sizes)
        low, high = quotient_interval(sums, sizes.astype(float), seed)
        covered += low <= 2.0 <= high
        alone += abs(sums.sum() / sizes.sum() - 2.0) < 1.96 * (2 / sizes.sum()) ** 0.5
    assert 0.85 * 150 <= covered < 150
    assert alone < 0.6 * 150


def test_intervals_of_few_sequences():
    assert np.isnan(quotient_interval(np.ones(1), np.ones(1), 0)).all()
    sums = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 4.0]])
    counts = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    low, high = quotient_interval(sums, counts, 0)
    assert low[0] == 1 < 3 == high[0]
    assert low[1] == high[1] == 2  # one sequence alone has it


def test_nanos_sinks_get_less_attention_with_more_keys(nano):
    questions = ["What is 58 * 7?", "What is 12 + 31?", "What is 3 * 9?"]
    traces = [nano.trace(nano.conversation(q), sinks.POINTS) for q in questions]
    report = sink_report(nano.config, traces)
    early, late = report.by_position.mean[0], report.by_position.mean[-1]
    assert early.mean() > 2 * late.mean()
    assert {"system", "user"} <= set(report.by_channel.names)


def test_mistakes_are_one_sentence(lab, traces):
    other = replace(traces[1], tensors={
        name: tensor + 1 if "mass" not in name else tensor
        for name, tensor in traces[1].tensors.items()
    })  # fmt: skip
    short = lab.trace(range(SETTLED), sinks.POINTS)
    bare = lab.trace(range(20), ["attn.sink_mass"])
    one = lab.trace(range(40), sinks.POINTS, heads=[1])
    for given, message in (
        ([], "there are no traces"),
        ([traces[0]], "1 of the traces have tokens from position 16 on"),
        ([traces[0], short], "1 of the traces"),
        ([traces[0], bare], "trace 1 has no attn.sink:"),
        ([traces[0], other], "trace 1 has other sinks"),
        ([traces[0], one], "trace 1 has other layers or heads"),
    ):
        with pytest.raises(LabError, match=message):
            sink_report(lab.config, given)
    with pytest.raises(LabError, match="a model with 2 layers; the configuration has 4"):
        sink_report(oss_lab.config.GPT_OSS_NANO, traces)
    heads = sink_report(lab.config, [one, replace(one)])
    assert (heads.heads, heads.mean.shape) == ((1,), (2, 1))
