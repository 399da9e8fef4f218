"""Compare one traced tensor with the tensor of an independent forward pass, token by token.

For each token, the norm of the difference is divided by the root mean square of the norms of the
expected vectors. So one bound fits points of any magnitude. The cosine is the smallest over all
tokens. -inf must be at the same positions in both tensors.

Choices of experts or tokens are compared by their logits. A choice is right if no alternative has a
logit larger by more than the bound, and the chosen logits are in decreasing order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oss_lab.hooks.points import POINTS

Array = NDArray[np.float64]
SMALL = 1e-12


@dataclass(frozen=True)
class Comparison:
    """The comparison of one point of one layer in one setting.

    Attributes:
        apart: the largest norm of a token's difference, relative to the expected vectors.
        absolute: the largest difference of a single number.
        cosine: the smallest cosine of any token; 1 where a cosine has no meaning.
        bound: the largest `apart` that passes.
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
    """Compare a point whose values are numbers.

    Args:
        measure: vectors whose norms are the scale, instead of those of `theirs`. Needed for a small
            difference of two large numbers, which is only as exact as those numbers.
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
    """The smallest cosine between the two vectors of a token; 1 for single numbers."""
    if a.shape[1] < 2:
        return 1.0
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.where(lengths > SMALL, (a * b).sum(1) / np.maximum(lengths, SMALL), 1.0)
    return float(cosines.min())


def compare_choice(
    point: str, layer: int | None, chosen: NDArray[np.int64], logits: Array, bound: float
) -> Comparison:
    """Compare chosen indices, largest logit first, with the logits [seq all] they index."""
    picked = np.take_along_axis(logits, chosen, axis=-1)
    rest = logits.copy()
    np.put_along_axis(rest, chosen, -np.inf, axis=-1)
    missed = np.maximum(rest.max(-1) - picked.min(-1), 0)
    rising = np.maximum(np.diff(picked, axis=-1), 0).max(-1, initial=0)
    twice = [len(set(row)) < len(row) for row in chosen.tolist()]
    apart = float(max(missed.max(), rising.max())) if not any(twice) else np.inf
    rms = np.sqrt(np.mean(logits**2)) + SMALL
    return Comparison(point, layer, float(apart / rms), apart, 1.0, bound)


def is_choice(point: str) -> bool:
    """Whether a point's values are indices."""
    return POINTS[point].kind in ("expert", "token")
