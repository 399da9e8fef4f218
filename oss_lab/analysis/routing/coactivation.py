"""Which experts of a layer are chosen together more often than their loads explain?

The null: every token chooses its experts independently of other tokens, from one distribution over
sets of distinct experts. It is the distribution of maximum entropy that gives each expert its load,
that is, of experts drawn independently, given how many are chosen. Drawing them one after the other
would change the loads, and multiplying loads would count impossible pairs. (Conditional Poisson
sampling: Chen, Dempster and Liu, Biometrika 81, 1994, p. 457.)

All tokens share the null's loads, so experts that are used for the same tokens have a ratio above
1. A high ratio does not show that one expert needs the other.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.routing.corpus import Corpus
from oss_lab.analysis.statistics.bootstrap import Estimate, ratio, resample_counts
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments

STEPS = 500
TOLERANCE = 1e-7
CERTAIN = 1 - 1e-6  # used for experts that every token chose, to keep weights finite


@dataclass(frozen=True)
class Coactivation:
    """Pairs of experts [layer expert expert].

    Attributes:
        observed: number of tokens that chose both; 0 on the diagonal.
        expected: the same under the null; NaN on the diagonal.
        ratio: observed / expected; NaN on the diagonal and for unused experts. For its interval,
            each draw has a null with the loads of that draw.
    """

    layers: tuple[int, ...]
    tokens: int
    seed: int
    resamples: int
    observed: Int[ndarray, "layer expert expert"]
    expected: Float[ndarray, "layer expert expert"]
    ratio: Estimate


@check_arguments
def coactivation(corpus: Corpus, *, resamples: int = 200, seed: int = 0) -> Coactivation:
    """Count the pairs, and compute their expected numbers from the loads.

    Raises:
        LabError: tokens have one slot only, or the null cannot be computed.
    """
    if corpus.slots < 2:
        raise LabError("each token has one expert; pairs need two or more")
    draws = resample_counts(corpus.sequences, resamples, seed)
    layers = [compare_pairs(corpus, layer, draws) for layer in range(len(corpus.layers))]
    observed, expected, ratios = zip(*layers, strict=True)
    return Coactivation(
        corpus.layers,
        len(corpus),
        seed,
        resamples,
        np.stack(observed),
        np.stack(expected),
        Estimate.stack(ratios),
    )


def compare_pairs(
    corpus: Corpus, layer: int, draws: Float[ndarray, "draw sequence"]
) -> tuple[Int[ndarray, "expert expert"], Float[ndarray, "expert expert"], Estimate]:
    """Observed and expected pairs of one layer, and their ratio."""
    experts, ids = corpus.experts, corpus.ids[layer]
    counts = count_pairs(ids, corpus.sequence, corpus.sequences, experts)
    tokens = draws @ np.bincount(corpus.sequence, minlength=corpus.sequences)
    both = (draws @ counts.reshape(len(counts), -1)).reshape(-1, experts, experts)
    chosen = np.diagonal(both, axis1=1, axis2=2)
    expected = tokens[:, None, None] * np.concatenate(
        [pair_probabilities(loads, corpus.slots) for loads in split_rows(chosen / tokens[:, None])]
    )
    off = ~np.eye(experts, dtype=bool)
    expected = np.where(off, expected, np.nan)
    return (
        both[0].astype(np.int64) * off,
        expected[0],
        Estimate.of(ratio(both, np.nan_to_num(expected))),
    )


def count_pairs(
    ids: Int[ndarray, "token slot"], sequence: Int[ndarray, "token"], sequences: int, experts: int
) -> Int[ndarray, "sequence expert expert"]:
    """Tokens of each sequence that chose both experts; on the diagonal, that chose the one."""
    cells = (sequence[:, None, None] * experts + ids[:, :, None]) * experts + ids[:, None, :]
    shape = (sequences, experts, experts)
    return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape)


def split_rows(rows: Float[ndarray, "row expert"]) -> list[Float[ndarray, "part expert"]]:
    """Split the rows into parts whose arrays of pairs take a few megabytes."""
    return np.array_split(rows, -(-len(rows) * rows.shape[1] ** 2 // 1_000_000))


def pair_probabilities(
    loads: Float[ndarray, "row expert"], slots: int
) -> Float[ndarray, "row expert expert"]:
    """The probability that a token chooses both experts, under the null; 0 on the diagonal.

    Args:
        loads: the probability that it chooses each expert; each row sums to `slots`.

    Raises:
        LabError: no weights were found that give these loads.
    """
    target = np.minimum(loads, CERTAIN)
    weights = target / (1 - target)
    for _ in range(STEPS):
        without = leave_one_out(weights, slots)
        inside = weights * without[..., slots - 1]
        outside = without[..., slots]
        found = inside / (inside + outside)
        if np.abs(found - loads).max() < TOLERANCE + (1 - CERTAIN):
            break
        weights = ratio(target * outside, (1 - target) * without[..., slots - 1])
        weights = np.nan_to_num(weights)
        weights /= weights.max(1, keepdims=True)
    else:
        raise LabError("the expected pairs did not converge: some loads are too extreme")
    rest = np.ones(
        (*weights.shape, weights.shape[1])
    )  # polynomials without both: row expert expert
    for degree in range(1, slots - 1):
        rest = without[:, :, None, degree] - weights[:, None, :] * rest
    pairs = weights[:, :, None] * weights[:, None, :] * np.maximum(rest, 0)
    pairs /= (inside + outside)[:, :, None]
    return np.where(np.eye(weights.shape[1], dtype=bool), 0.0, pairs)


def leave_one_out(
    weights: Float[ndarray, "row expert"], max_degree: int
) -> Float[ndarray, "row expert degree"]:
    """For each expert, the elementary symmetric polynomials of the other experts' weights.

    Degrees are 0 to `max_degree`. Products from both ends are multiplied, because dividing out an
    expert with a high load loses digits.
    """
    rows, experts = weights.shape
    before = np.zeros((experts + 1, rows, max_degree + 1))
    after = np.zeros_like(before)
    before[0, :, 0] = after[experts, :, 0] = 1
    for n in range(experts):
        before[n + 1] = before[n]
        before[n + 1, :, 1:] += weights[:, n, None] * before[n, :, :-1]
        m = experts - 1 - n
        after[m] = after[m + 1]
        after[m, :, 1:] += weights[:, m, None] * after[m + 1, :, :-1]
    found = [
        sum(before[:-1, :, a] * after[1:, :, degree - a] for a in range(degree + 1))
        for degree in range(max_degree + 1)
    ]
    return np.stack(found, -1).transpose(1, 0, 2)
