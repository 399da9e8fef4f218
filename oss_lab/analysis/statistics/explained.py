"""How much of a quantity follows from a label: variance explained in sequences not looked at.

A token's value is predicted by the mean of the tokens with its label in all other sequences. So a
label of many kinds gains nothing by fitting noise, and a label that means nothing explains none, or
a little less than none. Beside each share stands that of labels shuffled within each sequence,
which keeps what differs between sequences anyway.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.statistics.bootstrap import quotient_interval
from oss_lab.analysis.statistics.information import shuffled_within

Values = Float[ndarray, "token column"]
VARIES = 1e-9
"""Sum of squares below which all values are the same but for rounding."""


@dataclass(frozen=True)
class Explained:
    """Share of the variance that a label explains, for each column of values.

    Attributes:
        share: at most 1; below 0 where the label misleads. 0 where nothing varies.
        interval: at 95 %, over draws of sequences.
        by_chance: the mean of the same for shuffled labels.
        chance_high: their 97.5 % quantile.
    """

    share: Float[ndarray, "*column"]
    interval: Float[ndarray, "2 *column"]
    by_chance: Float[ndarray, "*column"]
    chance_high: Float[ndarray, "*column"]

    @property
    def excess(self) -> Float[ndarray, "*column"]:
        """The share beyond chance."""
        return self.share - self.by_chance

    def shaped(self, axes: tuple[int, ...]) -> "Explained":
        """The same with the columns laid out along several axes."""
        parts = (self.share, self.interval, self.by_chance, self.chance_high)
        return Explained(*(part.reshape(*part.shape[:-1], *axes) for part in parts))


def explained(
    values: Values,
    label: Int[ndarray, "token"],
    sequence: Int[ndarray, "token"],
    *,
    beside: Int[ndarray, "token"] | None = None,
    shuffles: int = 20,
    seed: int = 0,
) -> Explained:
    """What `label` explains of the values, over at least two sequences.

    Args:
        sequence: from 0, rising from token to token, none left out.
        beside: another label, whose part is taken out first; the share stays one of all variance.
            That part is each sequence's own, so that of few sequences the share comes out too low,
            by about one in their number.
    """
    values, nothing = values.astype(np.float64), np.zeros_like(label)
    centered = values - from_others(values, nothing, sequence)
    whole = summed(centered**2, sequence)
    # What the label is to explain, and what is left where it is not known.
    part = values if beside is None else centered - from_others(centered, beside, sequence)
    unknown = centered if beside is None else part

    def gained(labels: Int[ndarray, "token"]) -> Float[ndarray, "sequence column"]:
        left = part - from_others(part, labels, sequence)
        return summed(unknown**2 - left**2, sequence)

    def share(gain: Float[ndarray, "sequence column"]) -> Float[ndarray, "column"]:
        total = whole.sum(0)
        return np.divide(gain.sum(0), total, out=np.zeros_like(total), where=total > VARIES)

    gain, draw, shuffle = (
        gained(label),
        np.random.default_rng(seed),
        shuffled_within(label, sequence),
    )
    chance = np.array([share(gained(shuffle(draw))) for _ in range(shuffles)])
    interval = quotient_interval(gain, np.where(whole.sum(0) > VARIES, whole, 0), seed)
    return Explained(
        share(gain), np.nan_to_num(interval), chance.mean(0), np.quantile(chance, 0.975, axis=0)
    )


def from_others(
    values: Values, label: Int[ndarray, "token"], sequence: Int[ndarray, "token"]
) -> Values:
    """For each token the mean of its label in the other sequences; where none has it, that of all
    tokens in the other sequences."""
    kind = np.unique(label, return_inverse=True)[1]
    own = np.unique(kind * (sequence.max() + 1) + sequence, return_inverse=True)[1]
    sums = summed(values, kind)[kind] - summed(values, own)[own]
    counts = np.bincount(kind)[kind] - np.bincount(own)[own]
    every_sum = values.sum(0) - summed(values, sequence)
    every_count = len(values) - np.bincount(sequence)
    every_mean = (every_sum / every_count[:, None])[sequence]
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], every_mean)


def summed(
    values: Float[ndarray, "token *axes"], group: Int[ndarray, "token"]
) -> Float[ndarray, "group *axes"]:
    """Sums over the tokens of each group; groups are numbered from 0, none is empty."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.add.reduceat(values[order], starts)
