"""Lesson 17: read its stored result.

A run is compared with nano on the same problems, so each difference is paired.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from oss_lab.analysis.statistics.paired import paired_interval
from oss_lab.analysis.statistics.shares import Paired, Share
from oss_lab.course.labs.finetune.experts import permute_null, rank_correlation
from oss_lab.course.labs.results import load_result
from oss_lab.plots.style import plural

LESSON = "17_finetune"
LEAST = 0.05  # a smaller difference does not count as an effect
Result = dict[str, Any]


def load() -> Result:
    """The stored result."""
    return load_result(LESSON)


def find_runs(result: Result, condition: str) -> list[Result]:
    """The runs of a condition, one per seed, in order."""
    return [run for run in result["runs"] if run["condition"] == condition]


def share(run: Result, row: str) -> Share:
    """How many problems of a row were right after this run, or before any."""
    return Share.of(list_marks(run, row))


def list_marks(run: Result, row: str) -> list[bool]:
    return [mark == "1" for mark in run["marks"][row]]


def compare(result: Result, run: Result, row: str) -> Paired:
    """A row after the run and before, on the same problems."""
    after = list_marks(run, row)
    return Paired.of(after, list_marks(result["before"], row)[: len(after)])


def is_effect(pair: Paired) -> bool:
    """The measure that was fixed before the experiment: the 95% interval of the paired difference
    leaves out 0, and the difference is at least LEAST.
    """
    low, high = paired_interval(pair)
    return abs(pair.difference) >= LEAST and (low > 0 or high < 0)


def describe_pair(pair: Paired) -> str:
    """Counts before and after, and the difference in points with its interval."""
    low, high = (100 * bound for bound in paired_interval(pair))
    counts = f"{pair.second.count:3} -> {pair.first.count:3} of {pair.first.n}"
    return f"{counts}  {100 * pair.difference:+4.0f} ({low:+.0f} to {high:+.0f})"


def count_lost(result: Result, run: Result, rows: list[str]) -> tuple[int, int, int]:
    """Over several rows: problems right before, lost ones among them, and newly right ones."""
    pairs = [compare(result, run, row) for row in rows]
    before = sum(pair.second.count for pair in pairs)
    lost, won = (sum(getattr(p, name) for p in pairs) for name in ("only_second", "only_first"))
    return before, lost, won


def list_rows(result: Result, effort: str, least: int = 0) -> list[str]:
    """The old rows at an effort that have at least so many problems."""
    rows = result["before"]["marks"].items()
    return [row for row, marks in rows if row.endswith(f", {effort}") and len(marks) >= least]


def mean_change(result: Result, condition: str) -> list[list[float]]:
    """The change of each expert [layer expert], averaged over the seeds."""
    found = np.mean([run["change"] for run in find_runs(result, condition)], axis=0)
    return found.tolist()


def choice_shift(result: Result, run: Result, kind: str) -> list[list[float]]:
    """How much the share of tokens that chose each expert grew [layer expert]."""
    after, before = (np.array(each["choices"][kind]["counts"]) for each in (run, result["before"]))
    return ((after - before) / before.sum(-1, keepdims=True)).tolist()


def compare_seeds(maps: Sequence[list[list[float]]]) -> tuple[list[float], float]:
    """Rank correlations between each two maps [layer expert], one per seed, and the 99th percentile
    of a null that shuffles the experts of each layer.
    """
    pairs = list(combinations(maps, 2))
    null = sorted(each for pair in pairs for each in permute_null(*pair))
    return [rank_correlation(*pair) for pair in pairs], null[int(0.99 * len(null))]


def follow_use(result: Result, run: Result, kind: str) -> float:
    """Rank correlation of the change with how many tokens chose the expert before training."""
    return rank_correlation(run["change"], result["before"]["choices"][kind]["counts"])


def differing_choices(run: Result, kind: str) -> list[float]:
    """For each layer the share of choices that differ from nano's on the same tokens."""
    choices = run["choices"][kind]
    totals = [sum(layer) for layer in choices["counts"]]
    return [n / total for n, total in zip(choices["differ"], totals, strict=True)]


def top_share(change: list[list[float]], count: int) -> float:
    """The part of the squared change that the `count` experts of each layer with the largest have;
    an even spread gives count / experts.
    """
    squares = np.sort(np.square(change), axis=-1)[:, ::-1]
    return float(squares[:, :count].sum() / squares.sum())


def describe_seeds(result: Result, condition: str, row: str) -> str:
    """The counts of each seed."""
    shares = [share(run, row) for run in find_runs(result, condition)]
    counts = ", ".join(f"{each.count} of {each.n}" for each in shares)
    return f"{counts} ({plural(len(shares), 'seed')})"
