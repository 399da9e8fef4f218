"""How much of a quantity's variance a label explains, in held-out sequences.

A token's value is predicted by the mean of the tokens with its label in all other sequences. So a
label with many values gains nothing by fitting noise, and a meaningless label has a share of zero
or slightly below. Each share comes with that of labels shuffled within each sequence, which keeps
the differences between sequences.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.statistics.bootstrap import quotient_interval
from oss_lab.analysis.statistics.information import build_within_shuffle

Values = Float[ndarray, "token column"]
VARIES = 1e-9
"""Sum of squares below which all values are equal up to rounding."""


@dataclass(frozen=True)
class ExplainedVariance:
    """Share of the variance that a label explains, for each column of values.

    Attributes:
        share: at most 1; below 0 if the label misleads, 0 if nothing varies.
        interval: at 95%, over draws of sequences.
        by_chance: mean share of shuffled labels.
        chance_high: 97.5% quantile of the shares of shuffled labels.
    """

    share: Float[ndarray, "*column"]
    interval: Float[ndarray, "2 *column"]
    by_chance: Float[ndarray, "*column"]
    chance_high: Float[ndarray, "*column"]

    @property
    def excess(self) -> Float[ndarray, "*column"]:
        """The share minus that of chance."""
        return self.share - self.by_chance

    def reshape(self, axes: tuple[int, ...]) -> "ExplainedVariance":
        """The same with the columns reshaped to several axes."""
        parts = (self.share, self.interval, self.by_chance, self.chance_high)
        return ExplainedVariance(*(part.reshape(*part.shape[:-1], *axes) for part in parts))


def explain_variance(
    values: Values,
    label: Int[ndarray, "token"],
    sequence: Int[ndarray, "token"],
    *,
    beside: Int[ndarray, "token"] | None = None,
    shuffles: int = 20,
    seed: int = 0,
) -> ExplainedVariance:
    """How much of the values' variance `label` explains, over at least two sequences.

    Args:
        sequence: index of each token's sequence: from 0, ascending, with none left out.
        beside: another label, whose effect is removed first; the share is still of the whole
            variance. The effect is estimated for each sequence from the others, so with n
            sequences the share is too low, by about one part in n.
    """
    values, nothing = values.astype(np.float64), np.zeros_like(label)
    centered = values - from_others(values, nothing, sequence)
    whole = sum_by_group(centered**2, sequence)
    # What the label should explain, and what is unexplained without it.
    part = values if beside is None else centered - from_others(centered, beside, sequence)
    unknown = centered if beside is None else part

    def gain_of(labels: Int[ndarray, "token"]) -> Float[ndarray, "sequence column"]:
        left = part - from_others(part, labels, sequence)
        return sum_by_group(unknown**2 - left**2, sequence)

    def share(gain: Float[ndarray, "sequence column"]) -> Float[ndarray, "column"]:
        total = whole.sum(0)
        return np.divide(gain.sum(0), total, out=np.zeros_like(total), where=total > VARIES)

    gain, draw, shuffle = (
        gain_of(label),
        np.random.default_rng(seed),
        build_within_shuffle(label, sequence),
    )
    chance = np.array([share(gain_of(shuffle(draw))) for _ in range(shuffles)])
    interval = quotient_interval(gain, np.where(whole.sum(0) > VARIES, whole, 0), seed)
    return ExplainedVariance(
        share(gain), np.nan_to_num(interval), chance.mean(0), np.quantile(chance, 0.975, axis=0)
    )


def from_others(
    values: Values, label: Int[ndarray, "token"], sequence: Int[ndarray, "token"]
) -> Values:
    """For each token the mean of its label in the other sequences.

    If none of them has the label, the mean of all their tokens.
    """
    kind = np.unique(label, return_inverse=True)[1]
    own = np.unique(kind * (sequence.max() + 1) + sequence, return_inverse=True)[1]
    sums = sum_by_group(values, kind)[kind] - sum_by_group(values, own)[own]
    counts = np.bincount(kind)[kind] - np.bincount(own)[own]
    every_sum = values.sum(0) - sum_by_group(values, sequence)
    every_count = len(values) - np.bincount(sequence)
    every_mean = (every_sum / every_count[:, None])[sequence]
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], every_mean)


def sum_by_group(
    values: Float[ndarray, "token *axes"], group: Int[ndarray, "token"]
) -> Float[ndarray, "group *axes"]:
    """Sums over the tokens of each group; groups are numbered from 0, and none is empty."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.add.reduceat(values[order], starts)
