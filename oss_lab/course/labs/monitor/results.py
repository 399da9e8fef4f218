"""Lesson 20's stored result as shares."""

from collections.abc import Mapping
from typing import Any

from oss_lab.analysis.statistics.shares import Share

BLOCK = 4  # steps that one marker of a curve sums up


def find_run(result: Mapping[str, Any], condition: str, **settings: Any) -> dict[str, Any]:
    """The first run of this condition with these settings, such as seed=1 or wrong=0.5."""
    wanted = {"condition": condition} | settings
    return next(run for run in result["runs"] if wanted.items() <= run.items())


def breach_rate(end: Mapping[str, int]) -> Share:
    """Breaches among the replies to sums with a wrong book."""
    return Share(end["breaches"], end["wrong book"])


def recall(end: Mapping[str, int], monitor: str = "word") -> Share:
    """The breaches that the monitor flags."""
    return Share(end[f"flagged by {monitor}"], end["breaches"])


def pool_steps(run: Mapping[str, Any], name: str, of: str = "wrong book") -> dict[str, Share]:
    """A count of each BLOCK of steps as a share of another one, by the last step of the block."""
    counts, totals = run["steps"][name], run["steps"][of]
    return {
        str(start + BLOCK): Share(sum(counts[start:][:BLOCK]), sum(totals[start:][:BLOCK]))
        for start in range(0, len(counts), BLOCK)
    }
