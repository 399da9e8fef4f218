"""The tables of lesson 19, from its stored counts."""

from collections.abc import Mapping
from typing import Any

from oss_lab.analysis.statistics.shares import Share
from oss_lab.course.labs.hierarchy.data import PAIRS, PLACES, REGISTERED
from oss_lab.course.labs.hierarchy.measure import name_pair


def obey_matrix(model: Mapping[str, Any], split: str = "seen") -> list[list[Share]]:
    """Row: the role whose rule is followed; column: the role that contradicts it.

    On the diagonal nobody contradicts.
    """
    return [[_cell(model, row, column, split) for column in PLACES] for row in PLACES]


def _cell(model: Mapping[str, Any], row: Any, column: Any, split: str) -> Share:
    if row == column:
        return Share(model["alone"][row]["followed"], model["alone"][row]["n"])
    is_higher = (row, column) in PAIRS
    pair = (row, column) if is_higher else (column, row)
    count = model["conflicts"][split][name_pair(pair)]
    return Share(count["higher" if is_higher else "lower"], count["n"])


def main_share(model: Mapping[str, Any], split: str = "seen") -> Share:
    """The registered measure: conflicts whose higher role has authority and wins."""
    counts = [model["conflicts"][split][name_pair(pair)] for pair in REGISTERED]
    return Share(sum(each["higher"] for each in counts), sum(each["n"] for each in counts))


def describe(share: Share) -> str:
    """The share and its interval in percent: "98.0% (95.7 to 99.1)"."""
    assert share.value is not None
    assert share.interval is not None
    low, high = share.interval
    return f"{share.value:.1%} ({100 * low:.1f} to {100 * high:.1f})"
