"""Shares with their intervals, and paired answers to the same questions."""

import json

import pytest

from oss_lab.analysis.statistics.paired import subtract_shares
from oss_lab.analysis.statistics.shares import Paired, Share


def test_pairs_count_what_only_one_model_gets_right():
    paired = Paired.of([True, True, False, True], [True, False, False, False])
    assert (paired.first.count, paired.second.count) == (3, 1)
    assert (paired.only_first, paired.only_second, paired.difference) == (2, 0, 0.5)


def test_a_share_of_nothing_has_no_value():
    assert (Share(0, 0).value, Share(0, 0).interval) == (None, None)
    share = Share(8, 10)
    assert share.value == 0.8
    assert share.interval == pytest.approx((0.49, 0.943), abs=1e-3)
    assert json.loads(json.dumps(share.__dict__))["n"] == 10


def test_the_interval_of_a_difference_is_that_of_newcombe():
    """His table II: 56 of 70 against 48 of 80."""
    found = subtract_shares(Share(56, 70), Share(48, 80))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_the_interval_of_a_small_difference_includes_zero():
    value, low, high = subtract_shares(Share(270, 300), Share(150, 300))
    assert value == pytest.approx(0.4)
    assert 0 < low < value < high
    _, low, high = subtract_shares(Share(150, 300), Share(145, 300))
    assert low < 0 < high
