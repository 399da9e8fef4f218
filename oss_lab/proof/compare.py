"""One traced tensor against the independent forward's, token by token.

A token's difference, as a vector, is measured against the root mean square of the expected tokens'
lengths, so that one bound serves points of any size. The cosine is the worst of any token's. -inf
must stand in the same places.
Experts are compared by the logits of those chosen: a choice is right if none that was left out is
better by more than the bound, and they fall.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oss_lab.hooks.points import POINTS

Array = NDArray[np.float64]
SMALL = 1e-12


@dataclass(frozen=True)
class Comparison:
    """A point of a layer in one setting.

    Attributes:
        apart: length of the largest token's difference over that of an expected token.
        absolute: largest difference of a number.
        cosine: the worst of any token's; 1 where that says nothing.
        bound: that `apart` must keep to.
    """

    point: str
    layer: int | None
    apart: float
    absolute: float
    cosine: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.apart <= self.bound


def compare(
    point: str,
    layer: int | None,
    ours: Array,
    theirs: Array,
    bound: float,
    measure: Array | None = None,
) -> Comparison:
    """Any point whose values are numbers.

    Args:
        measure: whose tokens' length is the measure, where not that of `theirs`: a small difference
            of two large numbers is as exact as those.
    """
    if ours.shape != theirs.shape:
        return Comparison(point, layer, np.inf, np.inf, 0.0, bound)
    hidden = np.isneginf(theirs)
    if not np.array_equal(np.isneginf(ours), hidden) or np.isnan(ours).any():
        return Comparison(point, layer, np.inf, np.inf, 0.0, bound)
    ours, theirs = np.where(hidden, 0, ours), np.where(hidden, 0, theirs)
    a, b = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    measured = b if measure is None else measure
    expected = np.sqrt(np.mean((measured**2).sum(1))) + SMALL
    apart = float(np.linalg.norm(a - b, axis=1).max() / expected)
    return Comparison(point, layer, apart, float(np.abs(a - b).max()), worst_cosine(a, b), bound)


def worst_cosine(a: Array, b: Array) -> float:
    """The smallest cosine between the same token's values; of single numbers it says nothing."""
    if a.shape[1] < 2:
        return 1.0
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.where(lengths > SMALL, (a * b).sum(1) / np.maximum(lengths, SMALL), 1.0)
    return float(cosines.min())


def compare_choice(
    point: str, layer: int | None, chosen: NDArray[np.int64], logits: Array, bound: float
) -> Comparison:
    """Indices chosen by falling logit, against the logits [seq all] that they stand for."""
    picked = np.take_along_axis(logits, chosen, axis=-1)
    rest = logits.copy()
    np.put_along_axis(rest, chosen, -np.inf, axis=-1)
    behind = np.maximum(rest.max(-1) - picked.min(-1), 0)
    rising = np.maximum(np.diff(picked, axis=-1), 0).max(-1, initial=0)
    twice = [len(set(row)) < len(row) for row in chosen.tolist()]
    apart = float(max(behind.max(), rising.max())) if not any(twice) else np.inf
    rms = np.sqrt(np.mean(logits**2)) + SMALL
    return Comparison(point, layer, float(apart / rms), apart, 1.0, bound)


def is_choice(point: str) -> bool:
    """Whether a point's values are indices."""
    return POINTS[point].kind in ("expert", "token")
