"""The tokens of one row, most likely first, without sorting a large vocabulary.

Sampling needs only a few places in that order: where a filter cuts it off, and where the random
number falls. The leading bits of a token's float64 weight (the exponent and some bits of the
fraction) select its bucket. One pass sums every bucket, and only the buckets that contain such a
place are sorted. The result equals that of a full stable sort, up to the rounding of float64 sums.

Used on CPUs only. On other devices a full sort is fast, and bucket sums would vary between runs.
"""

import numpy as np
from jaxtyping import Float, Int

FRACTION_BITS = 52  # of a float64
LARGE = 10_000  # a larger vocabulary gets 16 buckets per power of two instead of 1


Sorted = tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]
"""The ids of one bucket in order, and the cumulative mass up to and including each of them."""


class Buckets:
    """Tokens ordered by weight, largest first; equal weights are ordered by id.

    A "mass" is the total weight of the first tokens in this order, so it also identifies a place in
    the order. `mass` is the total weight of all tokens.
    """

    def __init__(self, weights: Float[np.ndarray, "vocab"]) -> None:
        """`weights` are float64 in 0 ... 1, and the largest is 1."""
        self._weights = weights
        self._shift = FRACTION_BITS - (4 if len(weights) > LARGE else 0)
        # Positive floats keep their order when their bits are read as integers.
        self._keys = weights.view(np.int64) >> self._shift
        self._heaviest = self._find_key(1.0)
        sums = np.bincount(self._keys, weights, minlength=self._heaviest + 1)[::-1]
        # [bucket], heaviest first: the cumulative mass at the end of each bucket.
        self._ends = sums.cumsum()
        self._sorted: dict[int, Sorted] = {}
        self.mass = float(self._ends[-1])

    def find_mass(self, least: float) -> float:
        """Mass of the shortest prefix with at least this mass; `least` is at most `mass`."""
        _, masses = self._sort(int(self._ends.searchsorted(least)))
        return float(masses[masses.searchsorted(least)])

    def find_token(self, mass: float) -> int:
        """The first token at which the cumulative mass exceeds `mass`, which is below the total."""
        ids, masses = self._sort(int(self._ends.searchsorted(mass, side="right")))
        return int(ids[masses.searchsorted(mass, side="right")])

    def sum_first(self, count: int) -> float:
        """Mass of the first `count` tokens."""
        counts = np.bincount(self._keys, minlength=self._heaviest + 1)[::-1].cumsum()
        bucket = int(counts.searchsorted(count))
        if bucket >= self._heaviest:
            return self.mass  # the last bucket has weights near 1e-308, which add nothing
        _, masses = self._sort(bucket)
        return float(masses[count - 1 - (counts[bucket - 1] if bucket else 0)])

    def sum_heaviest(self, least: float) -> float:
        """Mass of all tokens with at least this weight, which is from 0 to 1."""
        bucket = self._heaviest - self._find_key(least)
        ids, masses = self._sort(bucket)
        count = np.count_nonzero(self._weights[ids] >= least)
        return float(masses[count - 1]) if count else self._find_start(bucket)

    def _sort(self, bucket: int) -> Sorted:
        if bucket not in self._sorted:
            ids = np.flatnonzero(self._keys == self._heaviest - bucket)
            ids = ids[np.argsort(-self._weights[ids], kind="stable")]
            masses = self._find_start(bucket) + self._weights[ids].cumsum()
            # Despite rounding, a bucket must end exactly where the next one starts.
            np.minimum(masses, self._ends[bucket], out=masses)
            masses[-1:] = self._ends[bucket]
            self._sorted[bucket] = ids, masses
        return self._sorted[bucket]

    def _find_key(self, weight: float) -> int:
        return int(np.float64(weight).view(np.int64)) >> self._shift

    def _find_start(self, bucket: int) -> float:
        return float(self._ends[bucket - 1]) if bucket else 0.0
