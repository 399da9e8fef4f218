"""Which experts of a layer are chosen together more often than their loads explain?

The null: every token chooses its slots independently of the others, by one distribution over sets
of that many different experts, the one of maximum entropy that gives each expert its load. It is
the choice of independent experts, given how many are chosen; drawing them one after the other, or
multiplying the loads, would count pairs that cannot be, and keep no load. (Conditional Poisson
sampling: Chen, Dempster and Liu, Biometrika 81, 1994, p. 457.)

All tokens share the null's loads, so experts that are busy with the same tokens come out above 1.
That is what is asked, and no sign that one needs the other.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.routing.corpus import Corpus
from oss_lab.analysis.statistics.bootstrap import Estimate, ratio, resampled
from oss_lab.errors import LabError

STEPS = 500
TOLERANCE = 1e-7
CERTAIN = 1 - 1e-6  # an expert of every token is taken to be chosen almost always


@dataclass(frozen=True)
class Coactivation:
    """Pairs of experts [layer expert expert].

    Attributes:
        observed: tokens that chose both; 0 on the diagonal.
        expected: the same under the null; NaN on the diagonal.
        ratio: observed over expected, NaN on the diagonal and for idle experts. In each of its
            interval's draws the null has the loads of that draw.
    """

    layers: tuple[int, ...]
    tokens: int
    seed: int
    resamples: int
    observed: Int[ndarray, "layer expert expert"]
    expected: Float[ndarray, "layer expert expert"]
    ratio: Estimate


def coactivation(corpus: Corpus, *, resamples: int = 200, seed: int = 0) -> Coactivation:
    """Count the pairs, and compute what the loads would give.

    Raises:
        LabError: a token has one slot only, or the null cannot be computed.
    """
    if corpus.slots < 2:
        raise LabError("each token has one expert; pairs need two or more")
    draws = resampled(corpus.sequences, resamples, seed)
    layers = [pairs_of(corpus, layer, draws) for layer in range(len(corpus.layers))]
    observed, expected, ratios = zip(*layers, strict=True)
    return Coactivation(
        corpus.layers,
        len(corpus),
        seed,
        resamples,
        np.stack(observed),
        np.stack(expected),
        Estimate.stacked(ratios),
    )


def pairs_of(
    corpus: Corpus, layer: int, draws: Float[ndarray, "draw sequence"]
) -> tuple[Int[ndarray, "expert expert"], Float[ndarray, "expert expert"], Estimate]:
    """Observed, expected and their ratio in one layer."""
    experts, ids = corpus.experts, corpus.ids[layer]
    counts = pairs_by_sequence(ids, corpus.sequence, corpus.sequences, experts)
    tokens = draws @ np.bincount(corpus.sequence, minlength=corpus.sequences)
    both = (draws @ counts.reshape(len(counts), -1)).reshape(-1, experts, experts)
    chosen = np.diagonal(both, axis1=1, axis2=2)
    expected = tokens[:, None, None] * np.concatenate(
        [pair_probabilities(loads, corpus.slots) for loads in in_parts(chosen / tokens[:, None])]
    )
    off = ~np.eye(experts, dtype=bool)
    expected = np.where(off, expected, np.nan)
    return (
        both[0].astype(np.int64) * off,
        expected[0],
        Estimate.of(ratio(both, np.nan_to_num(expected))),
    )


def pairs_by_sequence(
    ids: Int[ndarray, "token slot"], sequence: Int[ndarray, "token"], sequences: int, experts: int
) -> Int[ndarray, "sequence expert expert"]:
    """Tokens of each sequence that chose both of a pair; on the diagonal, that chose it."""
    cells = (sequence[:, None, None] * experts + ids[:, :, None]) * experts + ids[:, None, :]
    shape = (sequences, experts, experts)
    return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape)


def in_parts(rows: Float[ndarray, "row expert"]) -> list[Float[ndarray, "part expert"]]:
    """Some rows at a time, so that an array of pairs takes some megabytes."""
    return np.array_split(rows, -(-len(rows) * rows.shape[1] ** 2 // 1_000_000))


def pair_probabilities(
    loads: Float[ndarray, "row expert"], slots: int
) -> Float[ndarray, "row expert expert"]:
    """How likely a token chooses both of a pair, under the null; 0 on the diagonal.

    Args:
        loads: how likely it chooses each expert; the experts of a row sum to `slots`.

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
        raise LabError("the pairs that the loads give could not be found; the loads are extreme")
    rest = np.ones((*weights.shape, weights.shape[1]))  # of a set without both: row expert expert
    for degree in range(1, slots - 1):
        rest = without[:, :, None, degree] - weights[:, None, :] * rest
    pairs = weights[:, :, None] * weights[:, None, :] * np.maximum(rest, 0)
    pairs /= (inside + outside)[:, :, None]
    return np.where(np.eye(weights.shape[1], dtype=bool), 0.0, pairs)


def leave_one_out(
    weights: Float[ndarray, "row expert"], most: int
) -> Float[ndarray, "row expert degree"]:
    """For each expert, the elementary symmetric polynomials of the others' weights, 0 to `most`.

    Products from both ends are multiplied, since taking a busy expert out again loses digits.
    """
    rows, experts = weights.shape
    before = np.zeros((experts + 1, rows, most + 1))
    behind = np.zeros_like(before)
    before[0, :, 0] = behind[experts, :, 0] = 1
    for n in range(experts):
        before[n + 1] = before[n]
        before[n + 1, :, 1:] += weights[:, n, None] * before[n, :, :-1]
        m = experts - 1 - n
        behind[m] = behind[m + 1]
        behind[m, :, 1:] += weights[:, m, None] * behind[m + 1, :, :-1]
    found = [
        sum(before[:-1, :, a] * behind[1:, :, degree - a] for a in range(degree + 1))
        for degree in range(most + 1)
    ]
    return np.stack(found, -1).transpose(1, 0, 2)
