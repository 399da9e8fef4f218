"""Probes against plain regressions, on labels with meaning and labels without."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from oss_lab.analysis import probe as module
from oss_lab.analysis.probe import (
    Sample,
    accuracy_interval,
    choose_shuffle,
    fit,
    probe,
    standardize,
)
from oss_lab.analysis.statistics.shares import wilson
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AblateSlot
from oss_lab.lab import Lab
from oss_lab.record.token_labels import label_reply

SEQUENCES, SEQ = 12, 20  # more than two windows of the tiny model


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


@pytest.fixture(scope="module")
def sequences():
    return np.random.default_rng(0).integers(280, size=(SEQUENCES, SEQ)).tolist()


def test_a_probe_is_the_documented_regression(lab, sequences):
    labels = [[token % 3 for token in tokens] for tokens in sequences]
    found = probe(lab, sequences, labels, seed=3, shuffles=0)
    assert sorted((*found.fitted_on, *found.scored_on)) == list(range(SEQUENCES))
    assert len(found.scored_on) == round(0.3 * SEQUENCES)
    assert found.tokens == (len(found.fitted_on) * SEQ, len(found.scored_on) * SEQ)

    def rows(numbers, layer):
        traces = [lab.trace(sequences[n], ["resid.post"]) for n in numbers]
        features = np.concatenate([trace.tensor("resid.post", layer).numpy() for trace in traces])
        return features, np.concatenate([labels[n] for n in numbers])

    for layer, probe_of_layer in enumerate(found.layers):
        plain = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000))
        plain.fit(*rows(found.fitted_on, layer))
        assert probe_of_layer.layer == layer
        assert probe_of_layer.converged
        assert probe_of_layer.accuracy == pytest.approx(
            plain.score(*rows(found.scored_on, layer)), abs=0.02
        )
        assert probe_of_layer.fitted == pytest.approx(
            plain.score(*rows(found.fitted_on, layer)), abs=0.02
        )
    _, truth = rows(found.scored_on, 0)
    _, learned = rows(found.fitted_on, 0)
    assert found.majority == (truth == np.bincount(learned).argmax()).mean()


def test_the_penalty_is_the_documented_one():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 5)), rng.integers(3, size=200)
    model = fit(x, y)
    logits = x @ model.coef_.T + model.intercept_
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # The gradient of the summed nats plus half the squared weights is zero at the optimum, within
    # the precision of L-BFGS: 1e-4 per token.
    slope = (shares - np.eye(3)[y]).T @ x + module.PENALTY * model.coef_
    assert np.abs(slope).max() < 0.02 < 0.1 < np.abs(model.coef_).max()
    assert np.abs((shares - np.eye(3)[y]).sum(0)).max() < 0.02


def test_real_labels_are_found_and_random_labels_are_not(lab, sequences):
    few = [[token % 8 for token in tokens] for tokens in sequences]
    own = probe(lab, few, [[token >= 4 for token in tokens] for tokens in few], point="embed")
    (there,) = own.layers
    assert there.layer is None
    assert there.accuracy == 1 > there.interval[0] > 0.9
    assert max(there.shuffled) < 0.75
    labels = [[None, *(token >= 4 for token in tokens[:-1])] for tokens in few]
    before = probe(lab, few, labels, point="embed").layers[0]
    assert before.interval[0] < 0.5 < before.interval[1]
    noise = np.random.default_rng(5).integers(2, size=(SEQUENCES, SEQ)).tolist()
    for layer in probe(lab, few, noise).layers:
        assert layer.interval[0] < 0.5 < layer.interval[1]


def test_channels_can_be_read_in_nano(nano):
    replies = [nano.chat(f"What is {n} * 7?") for n in range(40, 44)]
    labels = [[token.channel for token in label_reply(reply, nano.tokenizer)] for reply in replies]
    found = probe(nano, replies, labels, layers=[0, 3], shuffles=1)
    assert set(found.labels) == {"analysis", "final"}
    first, last = found.layers
    assert (first.layer, last.layer) == (0, 3)
    assert last.accuracy > found.majority
    assert last.interval[0] > max(last.shuffled)


def test_seeds_and_interventions_change_the_result(lab, sequences):
    labels = [[token % 2 for token in tokens] for tokens in sequences]
    one = probe(lab, sequences, labels, seed=1)
    assert probe(lab, sequences, labels, seed=1) == one
    assert probe(lab, sequences, labels, seed=2).scored_on != one.scored_on
    with lab.intervene(AblateSlot(layer="all", slot=0)):
        assert probe(lab, sequences, labels, seed=1).layers != one.layers


def test_scored_tokens_do_not_affect_the_standardization():
    rng = np.random.default_rng(2)
    values = rng.normal(3, 2, size=(50, 4))
    values[:, 2] = 7
    fitted = np.arange(50) < 30
    found = standardize(values, fitted)
    np.testing.assert_allclose(found[:30].mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(found[:30].std(0), [1, 1, 0, 1], atol=1e-9)
    values[30:] += 100
    assert np.array_equal(standardize(values, fitted)[:30], found[:30])


def test_swaps_stay_within_sequences_or_swap_whole_ones():
    rng = np.random.default_rng(3)
    sequence = np.repeat(np.arange(10), 6)
    fitted = sequence % 3 > 0
    labels = rng.integers(3, size=60)
    swapped = choose_shuffle(Sample(labels, sequence, fitted))(rng)
    assert (swapped != labels).any()
    for n in range(10):
        assert sorted(swapped[sequence == n]) == sorted(labels[sequence == n])
    labels = np.repeat(np.arange(10), 6)
    swapped = choose_shuffle(Sample(labels, sequence, fitted))(rng)
    whole = swapped.reshape(10, 6)
    assert (whole == whole[:, :1]).all()
    assert (swapped != labels).any()
    assert set(swapped[fitted]) == set(labels[fitted])


def test_the_interval_is_the_wider_of_two_intervals():
    alike = np.repeat([True, False] * 10, 30)  # sequences all right or all wrong
    low, high = accuracy_interval(alike, np.repeat(np.arange(20), 30), seed=0)
    rng = np.random.default_rng(9)
    means = [np.mean(rng.choice([1.0, 0.0] * 10, 20)) for _ in range(4000)]
    assert (low, high) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.06)
    assert low < wilson(300, 600)[0]
    assert accuracy_interval(np.ones(50, bool), np.arange(50) // 5, seed=0) == (
        wilson(50, 50)[0],
        1,
    )


def test_mistakes_are_one_sentence(lab, sequences):
    labels = [[token % 2 for token in tokens] for tokens in sequences]
    nothing = [[None] * SEQ for _ in sequences]
    for call, message in (
        (lambda: probe(lab, sequences, labels[1:]), "labels for 11 of 12 sequences"),
        (lambda: probe(lab, sequences, [[0], *labels[1:]]), "sequence 0 has 20 tokens and 1 label"),
        (lambda: probe(lab, sequences, [labels[0], *nothing[1:]]), "1 sequences have labels"),
        (lambda: probe(lab, sequences, [[5] * SEQ] * SEQUENCES), "labeled 5; a probe needs two"),
        (
            lambda: probe(lab, sequences, labels, point="attn.q"),
            "attn.q has axes seq head head_dim",
        ),
        (lambda: probe(lab, sequences, labels, point="resid"), "unknown point 'resid'"),
        (lambda: probe(lab, sequences, labels, layers=[9]), "layer 9 is out of range"),
        (lambda: probe(lab, sequences, labels, shuffles=-1), "shuffles is -1"),
    ):
        with pytest.raises(LabError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
