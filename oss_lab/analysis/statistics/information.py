"""Mutual information of experts and labels, and what of it shuffled labels give as well.

Counted frequencies stand for probabilities (the plug-in estimate), which is biased upward: labels
that mean nothing still give a little. So the labels are shuffled many times, and the excess over
the mean of that is reported. All in bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Int
from numpy import ndarray

Shuffle = Callable[[np.random.Generator], Int[ndarray, "token"]]
"""Draws labels that the tokens could have had by chance."""


@dataclass(frozen=True)
class Information:
    """Mutual information in one layer.

    Attributes:
        bits: the plug-in estimate.
        null_mean, null_high: of shuffled labels, the mean and the 97.5 % quantile.
        excess: bits minus null_mean.
    """

    bits: float
    null_mean: float
    null_high: float
    excess: float


def entropy(counts: Int[ndarray, "..."]) -> float:
    """Entropy of counted outcomes; empty cells count for nothing.

    >>> entropy(np.array([2, 1, 1, 0]))
    1.5
    """
    return float(scipy.stats.entropy(counts.ravel(), base=2))


def mutual_information(table: Int[ndarray, "given label expert"]) -> float:
    """I(label; expert | given) = H(label, given) + H(expert, given) - H(all) - H(given).

    With one `given` this is the ordinary mutual information.

    >>> mutual_information(np.array([[[5, 0], [0, 5]]]))
    1.0
    """
    pairs = entropy(table.sum(2)) + entropy(table.sum(1))
    return pairs - entropy(table) - entropy(table.sum((1, 2)))


def count(
    ids: Int[ndarray, "token slot"],
    labels: Int[ndarray, "token"],
    given: Int[ndarray, "token"],
    experts: int,
) -> Int[ndarray, "given label expert"]:
    """How often each expert was chosen; every slot of a token counts."""
    shape = (int(given.max()) + 1, int(labels.max()) + 1, experts)
    cells = ((given * shape[1] + labels) * experts)[:, None] + ids
    return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape)


def information(
    ids: Int[ndarray, "layer token slot"],
    labels: Int[ndarray, "token"],
    shuffle: Shuffle,
    experts: int,
    *,
    given: Int[ndarray, "token"] | None = None,
    shuffles: int,
    seed: int,
) -> list[Information]:
    """Mutual information of expert and label in each layer, where `given` is known already."""
    known = np.zeros_like(labels) if given is None else given
    draw = np.random.default_rng(seed)

    def bits(of: Int[ndarray, "token"]) -> list[float]:
        return [mutual_information(count(layer, of, known, experts)) for layer in ids]

    real = bits(labels)
    null = np.array([bits(shuffle(draw)) for _ in range(shuffles)])
    return [
        Information(value, float(chance.mean()), float(np.quantile(chance, 0.975)),
                    value - float(chance.mean()))
        for value, chance in zip(real, null.T, strict=True)
    ]  # fmt: skip


def shuffled_groups(of_group: Int[ndarray, "group"], group: Int[ndarray, "token"]) -> Shuffle:
    """Labels that belong to whole groups: the groups swap theirs."""
    return lambda draw: draw.permutation(of_group)[group]


def shuffled_within(labels: Int[ndarray, "token"], group: Int[ndarray, "token"]) -> Shuffle:
    """Labels that belong to tokens: the tokens of each group swap theirs.

    `group` rises from token to token.
    """

    def shuffle(draw: np.random.Generator) -> Int[ndarray, "token"]:
        return labels[np.lexsort((draw.random(len(labels)), group))]

    return shuffle
