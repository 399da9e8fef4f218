"""Mutual information of experts and labels, compared with that of shuffled labels.

Counted frequencies are used as probabilities (the plug-in estimate). This is biased upward: even
meaningless labels give a little. So the labels are shuffled many times, and the excess over the
mean of the shuffles is reported. All values are in bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Int
from numpy import ndarray

Shuffle = Callable[[np.random.Generator], Int[ndarray, "token"]]
"""Draws labels that the tokens could have by chance."""


@dataclass(frozen=True)
class Information:
    """Mutual information in one layer.

    Attributes:
        bits: the plug-in estimate.
        null_mean, null_high: the mean and the 97.5% quantile for shuffled labels.
        excess: bits minus null_mean.
    """

    bits: float
    null_mean: float
    null_high: float
    excess: float


def entropy(counts: Int[ndarray, "..."]) -> float:
    """Entropy of counted outcomes in bits; empty cells add nothing.

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


def count_choices(
    ids: Int[ndarray, "token slot"],
    labels: Int[ndarray, "token"],
    given: Int[ndarray, "token"],
    experts: int,
) -> Int[ndarray, "given label expert"]:
    """How often each expert was chosen with each label; every slot of a token counts."""
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
    """Mutual information of expert and label in each layer, conditional on `given`."""
    condition = np.zeros_like(labels) if given is None else given
    draw = np.random.default_rng(seed)

    def bits(of: Int[ndarray, "token"]) -> list[float]:
        return [mutual_information(count_choices(layer, of, condition, experts)) for layer in ids]

    real = bits(labels)
    null = np.array([bits(shuffle(draw)) for _ in range(shuffles)])
    return [
        Information(value, float(chance.mean()), float(np.quantile(chance, 0.975)),
                    value - float(chance.mean()))
        for value, chance in zip(real, null.T, strict=True)
    ]  # fmt: skip


def build_group_shuffle(of_group: Int[ndarray, "group"], group: Int[ndarray, "token"]) -> Shuffle:
    """A shuffle for labels of whole groups: the groups swap their labels."""
    return lambda draw: draw.permutation(of_group)[group]


def build_within_shuffle(labels: Int[ndarray, "token"], group: Int[ndarray, "token"]) -> Shuffle:
    """A shuffle for labels of tokens: the tokens of each group swap their labels.

    `group` must be in ascending order.
    """

    def shuffle(draw: np.random.Generator) -> Int[ndarray, "token"]:
        return labels[np.lexsort((draw.random(len(labels)), group))]

    return shuffle
