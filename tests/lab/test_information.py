"""Mutual information against tables worked out by hand, and shuffles that keep what they must
keep.
"""

import math

import numpy as np
import pytest

from oss_lab.analysis.statistics.information import (
    build_group_shuffle,
    build_within_shuffle,
    count_choices,
    entropy,
    information,
    mutual_information,
)


@pytest.mark.parametrize(
    ("table", "bits"),
    [
        ([[4, 4], [4, 4]], 0.0),
        ([[2, 6], [1, 3]], 0.0),  # independent, with unequal counts
        ([[8, 0], [0, 8]], 1.0),
        (np.eye(8, dtype=int) * 5, 3.0),
        ([[3, 3, 0, 0], [0, 0, 3, 3]], 1.0),  # two experts per label
        # H(label) = 1, H(label | expert) = 3/4 H(1/3) + 0
        ([[2, 2], [4, 0]], None),
    ],
)
def test_information_of_tables_worked_out_by_hand(table, bits):
    if bits is None:
        third = -(1 / 3) * math.log2(1 / 3) - (2 / 3) * math.log2(2 / 3)
        bits = 1 - 0.75 * third
    assert mutual_information(np.array([table])) == pytest.approx(bits, abs=1e-12)


def test_conditioning_removes_a_dependence_that_goes_through_the_given_variable():
    """The expert follows from the token's kind, which differs by task: given the kind, it adds
    nothing."""
    table = np.array([[[6, 0], [2, 0]], [[0, 2], [0, 6]]])  # given=kind, label=task, expert=kind
    assert mutual_information(table.sum(0, keepdims=True)) > 0.15
    assert mutual_information(table) == pytest.approx(0, abs=1e-12)


def test_every_slot_of_a_token_counts():
    ids = np.array([[0, 2], [2, 1], [0, 1]])
    table = count_choices(ids, np.array([0, 1, 1]), np.zeros(3, int), experts=4)
    assert table.tolist() == [[[1, 0, 1, 0], [1, 2, 1, 0]]]
    assert entropy(table.sum((0, 1))) == pytest.approx(math.log2(3))


def test_shuffles_keep_groups_whole_or_stay_within_them():
    group = np.repeat([0, 1, 2, 3], [5, 1, 7, 3])
    draw = np.random.default_rng(0)
    of_group = np.array([0, 0, 1, 2])
    for _ in range(20):
        labels = build_group_shuffle(of_group, group)(draw)
        per_group = [set(labels[group == g]) for g in range(4)]
        assert all(len(each) == 1 for each in per_group)
        assert sorted(each.pop() for each in per_group) == [0, 0, 1, 2]
    labels = np.arange(16)
    moved = build_within_shuffle(labels, group)(draw)
    assert (moved != labels).any()
    for g in range(4):
        assert sorted(moved[group == g]) == labels[group == g].tolist()


def test_only_a_real_dependence_exceeds_shuffled_labels():
    draw = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 25)
    labels = draw.integers(0, 4, 1000)
    chance = draw.integers(0, 8, (1000, 2))
    tied = (labels[:, None] * 2 + draw.integers(0, 2, (1000, 2))) % 8
    ids = np.stack([chance, tied])
    layers = information(
        ids, labels, build_within_shuffle(labels, group), experts=8, shuffles=100, seed=0
    )
    nothing, all_of_it = layers
    assert 0 < nothing.bits < 0.03  # the bias of the plug-in estimate
    assert nothing.null_mean == pytest.approx(nothing.bits, abs=0.01)
    assert abs(nothing.excess) < 0.01
    assert nothing.null_mean < nothing.null_high
    assert all_of_it.bits == pytest.approx(entropy(np.bincount(labels)))
    assert all_of_it.excess > 1.9
    again = information(
        ids, labels, build_within_shuffle(labels, group), experts=8, shuffles=100, seed=0
    )
    assert again == layers


def test_one_conversation_per_task_is_not_enough_to_exceed_the_null():
    """Two conversations: labels shuffled over conversations carry as much information as the real
    ones."""
    group = np.repeat([0, 1], 50)
    ids = group[None, :, None]
    (found,) = information(
        ids, group, build_group_shuffle(np.array([0, 1]), group), experts=2, shuffles=100, seed=0
    )
    assert found.bits == pytest.approx(1)
    assert found.excess == pytest.approx(0)
