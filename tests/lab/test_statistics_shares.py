"""Shares with their intervals, and paired answers to the same questions."""

import json

import pytest

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
