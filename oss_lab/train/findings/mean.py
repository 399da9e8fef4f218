"""A mean over problems with its interval, bootstrapped over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

DRAWS = 1000


@dataclass(frozen=True)
class Mean:
    """The mean of `n` problems; the interval is the bootstrap's at 95 %, both are None for n = 0.

    >>> Mean.of([2, 2, 2], seed=0)
    Mean(value=2.0, interval=(2.0, 2.0), n=3)
    """

    value: float | None
    interval: tuple[float, float] | None
    n: int

    @classmethod
    def of(cls, values: "Sequence[float] | ndarray", seed: int) -> "Mean":
        x = np.asarray(values, dtype=np.float64)
        if not len(x):
            return cls(None, None, 0)
        drawn = np.random.default_rng(seed).integers(len(x), size=(DRAWS, len(x)))
        return cls(float(x.mean()), interval(x[drawn].mean(1)), len(x))


def interval(again: ndarray) -> tuple[float, float]:
    """The 95 % interval of a statistic from its values on problems drawn again."""
    low, high = np.percentile(again, (2.5, 97.5))
    return float(low), float(high)
