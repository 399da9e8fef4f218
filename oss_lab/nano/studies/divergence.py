"""How differently experts are used at two efforts: Jensen-Shannon divergence beside two nulls.

Both nulls leave the tokens as they are and deal out anew which effort they come from: token by
token, as `oss_lab/analysis/effort.py` does, or a problem's two replies at once, which keeps
together the tokens of one reply, that are not independent of each other.
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
    """Of one layer, in bits, from 0 (the same use) to 1 (no expert in common).

    Attributes:
        interval: the bootstrap's over problems, at 95 %; being of counts drawn again, it lies
            rather too high.
        tokens_dealt, problems_swapped: the 95th percentile of the nulls.
    """

    bits: float
    interval: tuple[float, float]
    tokens_dealt: float
    problems_swapped: float


def divergences(
    first: Sequence[Chosen], second: Sequence[Chosen], experts: int, seed: int
) -> list[Divergence]:
    """Of each layer, between the choices of the same problems at two efforts."""
    rng = np.random.default_rng(seed)
    mine, theirs = ([counts(each, experts) for each in side] for side in (first, second))
    a, b = (np.stack([each.sum(0) for each in side]) for side in (mine, theirs))
    real = bits(a.sum(0), b.sum(0))
    dealt = dealt_anew(np.concatenate(mine), np.concatenate(theirs), rng)
    swaps = rng.integers(2, size=(SHUFFLES, len(a))).astype(float)
    swapped = bits(total(swaps, a) + total(1 - swaps, b), total(swaps, b) + total(1 - swaps, a))
    draws = draw_counts(len(a), DRAWS, rng)
    low, high = percentile_interval(bits(total(draws, a), total(draws, b)))
    return [
        Divergence(
            float(real[layer]),
            (float(low[layer]), float(high[layer])),
            float(np.percentile(dealt[:, layer], NULL)),
            float(np.percentile(swapped[:, layer], NULL)),
        )
        for layer in range(len(real))
    ]


def counts(chosen: Chosen, experts: int) -> Float[ndarray, "token layer expert"]:
    """How often each token chose each expert, 0 or 1."""
    return (chosen[..., None] == np.arange(experts)).sum(2, dtype=float).swapaxes(0, 1)


def bits(a: Counts, b: Counts) -> Float[ndarray, "*unit layer"]:
    """The divergence of the shares that counts are of."""
    return jensen_shannon(a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True))


def dealt_anew(a: Counts, b: Counts, rng: np.random.Generator) -> Float[ndarray, "shuffle layer"]:
    """The divergence where the tokens of both sides are dealt out anew, each side as many."""
    pool = np.concatenate((a, b))
    first = np.zeros((SHUFFLES, len(pool)))
    for row in first:
        row[rng.permutation(len(pool))[: len(a)]] = 1
    return bits(total(first, pool), total(1 - first, pool))


def total(weights: Float[ndarray, "draw unit"], of: Counts) -> Counts:
    """Sums over units, each weighed: [draw layer expert]."""
    return np.tensordot(weights, of, 1)


def moved(first: Chosen, second: Chosen, experts: int) -> Float[ndarray, "token layer"]:
    """The share of a token's experts at one effort that it does not have at the other."""
    common = (counts(first, experts) * counts(second, experts)).sum(-1)
    return 1 - common / first.shape[2]
