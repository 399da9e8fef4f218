"""Counted outcomes: a share with its interval, and two models on the same problems."""

from collections.abc import Sequence
from dataclasses import dataclass, field


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95% for `right` of `n` (J. Am. Stat. Assoc. 22, 1927, p. 209).

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    from scipy.stats import binomtest  # takes a second; exercise sheets import this module

    found = binomtest(right, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Share:
    """`count` of `n`, with Wilson's 95% interval; value and interval are None for n = 0."""

    count: int
    n: int
    value: float | None = field(init=False)
    interval: tuple[float, float] | None = field(init=False)

    def __post_init__(self) -> None:
        bounds = wilson(self.count, self.n) if self.n else None
        object.__setattr__(self, "value", self.count / self.n if self.n else None)
        object.__setattr__(self, "interval", bounds)

    @classmethod
    def of(cls, marks: Sequence[bool]) -> "Share":
        return cls(sum(marks), len(marks))


@dataclass(frozen=True)
class Paired:
    """Two models on the same problems.

    Attributes:
        difference: accuracy of the first minus that of the second.
        only_first, only_second: number of problems that only this model got right.
    """

    first: Share
    second: Share
    difference: float
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "Paired":
        only_first = sum(a and not b for a, b in zip(first, second, strict=True))
        only_second = sum(b and not a for a, b in zip(first, second, strict=True))
        difference = (only_first - only_second) / len(first)
        return cls(Share.of(first), Share.of(second), difference, only_first, only_second)
