"""Which other tokens go through the same experts? Neighbors of one token by its path.

A path is a token's experts in all layers. Two tokens are as near as the slots that they share: an
expert of a layer that both chose, whatever its rank, counts one. After the expert paths of
arXiv:2604.17837, and with what a neighbor has to be held against: how much tokens share that were
drawn at random, and how much those do that have the same id.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from oss_lab.analysis.routing.corpus import Corpus
from oss_lab.errors import LabError, check_index


@dataclass(frozen=True)
class Neighbor:
    """A token near another.

    Attributes:
        sequence, position: where it is.
        shared: slots of all layers that it has in common.
    """

    sequence: int
    position: int
    token: int
    text: str
    shared: int


@dataclass(frozen=True)
class Neighbors:
    """The nearest tokens of a corpus, and what is near by chance.

    Attributes:
        slots: of a path, the most that can be shared.
        nearest: by falling `shared`; of equally near ones the first of the corpus.
        as_near: tokens at least as near as the last of `nearest`.
        any_pair: of `pairs` random pairs of tokens from different sequences, how many share
            0, 1, ... `slots`.
        same_token: the same of pairs with one id; all zero where no id is in two sequences.
    """

    of: Neighbor
    slots: int
    nearest: list[Neighbor]
    as_near: int
    seed: int
    pairs: int
    any_pair: Int[ndarray, "shared"]
    same_token: Int[ndarray, "shared"]


def neighbors(
    corpus: Corpus,
    sequence: int,
    position: int,
    *,
    count: int = 10,
    pairs: int = 10_000,
    seed: int = 0,
) -> Neighbors:
    """The tokens nearest to the one at a position of a sequence, itself left out.

    Args:
        sequence: number of the trace.
        pairs: drawn for each of the two baselines; those of one sequence are dropped.

    Raises:
        LabError: the corpus has no such token, or a count is below 1.
    """
    for name, value in (("count", count), ("pairs", pairs)):
        if value < 1:
            raise LabError(f"{name} is {value}; it must be 1 or more")
    here = place_of(corpus, sequence, position)
    near = shared(corpus, np.full(len(corpus), here), np.arange(len(corpus)))
    order = np.argsort(-near, kind="stable")
    order = order[order != here]
    nearest = [occurrence(corpus, int(n), int(near[n])) for n in order[:count]]
    slots = len(corpus.layers) * corpus.slots
    rng = np.random.default_rng(seed)
    return Neighbors(
        occurrence(corpus, here, slots),
        slots,
        nearest,
        int((near[order] >= nearest[-1].shared).sum()) if nearest else 0,
        seed,
        pairs,
        by_chance(corpus, *rng.integers(len(corpus), size=(2, pairs))),
        by_chance(corpus, *same_token_pairs(corpus.token, pairs, rng)),
    )


def place_of(corpus: Corpus, sequence: int, position: int) -> int:
    """Which token of the corpus stands at a position of a sequence."""
    check_index("sequence", sequence, corpus.sequences)
    there = np.flatnonzero(corpus.sequence == sequence)
    positions = corpus.position[there]
    if position not in positions:
        kept = f"{positions.min()} to {positions.max()}"
        raise LabError(f"sequence {sequence} holds no position {position}; it holds some of {kept}")
    return int(there[positions == position][0])


def shared(
    corpus: Corpus, a: Int[ndarray, "pair"], b: Int[ndarray, "pair"]
) -> Int[ndarray, "pair"]:
    """Slots that the tokens of each pair have in common, over all layers."""
    total = np.zeros(len(a), np.int64)
    for ids in corpus.ids:
        total += (ids[a][:, :, None] == ids[b][:, None, :]).sum((1, 2))
    return total


def by_chance(
    corpus: Corpus, a: Int[ndarray, "pair"], b: Int[ndarray, "pair"]
) -> Int[ndarray, "shared"]:
    """How many pairs share 0, 1, ... slots; only those of two sequences count."""
    apart = corpus.sequence[a] != corpus.sequence[b]
    slots = len(corpus.layers) * corpus.slots
    return np.bincount(shared(corpus, a[apart], b[apart]), minlength=slots + 1)


def same_token_pairs(
    token: Int[ndarray, "token"], pairs: int, rng: np.random.Generator
) -> tuple[Int[ndarray, "pair"], Int[ndarray, "pair"]]:
    """A random token, and a random one of those with its id."""
    order = np.argsort(token, kind="stable")
    _, group, counts = np.unique(token, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    a = rng.integers(len(token), size=pairs)
    of = group[a]
    return a, order[first[of] + rng.integers(counts[of])]


def occurrence(corpus: Corpus, n: int, near: int) -> Neighbor:
    """Token n of the corpus, and how much of a path it shares."""
    id = int(corpus.token[n])
    place = int(corpus.sequence[n]), int(corpus.position[n])
    return Neighbor(*place, id, corpus.texts[id], near)
