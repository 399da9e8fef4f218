"""How differently experts are used at two efforts: the Jensen-Shannon divergence and two nulls.

Both nulls keep the tokens and shuffle which effort they belong to. The first shuffles single
tokens, as `oss_lab/analysis/effort.py` does. The second swaps the two replies to a problem, which
keeps the tokens of a reply together, since these are not independent of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.effort import jensen_shannon
from oss_lab.analysis.statistics.bootstrap import DRAWS, draw_counts, percentile_interval

SHUFFLES = 200
NULL = 95  # percentile

Chosen = Int[ndarray, "layer token slot"]
Counts = Float[ndarray, "*unit layer expert"]


@dataclass(frozen=True)
class Divergence:
    """The divergence of one layer in bits, from 0 (the same use) to 1 (no expert in common).

    Attributes:
        interval: the 95% bootstrap interval over problems. It is biased upward, because resampled
            counts are noisier.
        tokens_dealt, problems_swapped: the 95th percentile of each null.
    """

    bits: float
    interval: tuple[float, float]
    tokens_dealt: float
    problems_swapped: float


def measure_divergences(
    first: Sequence[Chosen], second: Sequence[Chosen], experts: int, seed: int
) -> list[Divergence]:
    """The divergence of each layer, between the same problems at two efforts."""
    rng = np.random.default_rng(seed)
    mine, theirs = ([count_choices(each, experts) for each in side] for side in (first, second))
    a, b = (np.stack([each.sum(0) for each in side]) for side in (mine, theirs))
    real = divergence_in_bits(a.sum(0), b.sum(0))
    dealt = shuffle_tokens(np.concatenate(mine), np.concatenate(theirs), rng)
    swaps = rng.integers(2, size=(SHUFFLES, len(a))).astype(float)
    swapped = divergence_in_bits(
        sum_weighted(swaps, a) + sum_weighted(1 - swaps, b),
        sum_weighted(swaps, b) + sum_weighted(1 - swaps, a),
    )
    draws = draw_counts(len(a), DRAWS, rng)
    low, high = percentile_interval(
        divergence_in_bits(sum_weighted(draws, a), sum_weighted(draws, b))
    )
    return [
        Divergence(
            float(real[layer]),
            (float(low[layer]), float(high[layer])),
            float(np.percentile(dealt[:, layer], NULL)),
            float(np.percentile(swapped[:, layer], NULL)),
        )
        for layer in range(len(real))
    ]


def count_choices(chosen: Chosen, experts: int) -> Float[ndarray, "token layer expert"]:
    """Whether each token chose each expert, as 0 or 1."""
    return (chosen[..., None] == np.arange(experts)).sum(2, dtype=float).swapaxes(0, 1)


def divergence_in_bits(a: Counts, b: Counts) -> Float[ndarray, "*unit layer"]:
    """The divergence between the experts' shares in two tables of counts."""
    return jensen_shannon(a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True))


def shuffle_tokens(
    a: Counts, b: Counts, rng: np.random.Generator
) -> Float[ndarray, "shuffle layer"]:
    """The divergence after shuffling the tokens of both sides; each side keeps its size."""
    pool = np.concatenate((a, b))
    first = np.zeros((SHUFFLES, len(pool)))
    for row in first:
        row[rng.permutation(len(pool))[: len(a)]] = 1
    return divergence_in_bits(sum_weighted(first, pool), sum_weighted(1 - first, pool))


def sum_weighted(weights: Float[ndarray, "draw unit"], of: Counts) -> Counts:
    """Weighted sums over units: [draw layer expert]."""
    return np.tensordot(weights, of, 1)


def share_moved(first: Chosen, second: Chosen, experts: int) -> Float[ndarray, "token layer"]:
    """The share of a token's experts at one effort that it does not have at the other."""
    common = (count_choices(first, experts) * count_choices(second, experts)).sum(-1)
    return 1 - common / first.shape[2]
