"""Which other tokens use the same experts? Neighbors of a token by its path.

A path is a token's experts in all layers. Two tokens are as near as the number of slots that they
share: an expert of a layer that both chose, at any rank, counts one. This follows the expert paths
of arXiv:2604.17837, and adds two baselines: how many slots random pairs of tokens share, and how
many pairs with the same id share.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from oss_lab.analysis.routing.corpus import Corpus
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.arguments import check_arguments


@dataclass(frozen=True)
class Neighbor:
    """A token near another.

    Attributes:
        sequence, position: where it is.
        shared: number of slots in common, over all layers.
    """

    sequence: int
    position: int
    token: int
    text: str
    shared: int


@dataclass(frozen=True)
class Neighbors:
    """The nearest tokens of a corpus, and how near tokens are by chance.

    Attributes:
        slots: length of a path, and so the largest number that can be shared.
        nearest: nearest first; ties in the order of the corpus.
        as_near: how many tokens are at least as near as the last of `nearest`.
        any_pair: of `pairs` random pairs of tokens from different sequences, how many share
            0, 1, ... `slots`.
        same_token: the same for pairs with one id; all zero if no id is in two sequences.
    """

    of: Neighbor
    slots: int
    nearest: list[Neighbor]
    as_near: int
    seed: int
    pairs: int
    any_pair: Int[ndarray, "shared"]
    same_token: Int[ndarray, "shared"]


@check_arguments
def find_neighbors(
    corpus: Corpus,
    sequence: int,
    position: int,
    *,
    count: int = 10,
    pairs: int = 10_000,
    seed: int = 0,
) -> Neighbors:
    """The tokens nearest to the one at a position of a sequence, without itself.

    Args:
        sequence: index of the trace.
        pairs: how many to draw for each baseline; pairs within one sequence are dropped.

    Raises:
        LabError: the corpus has no token there, or a count is below 1.
    """
    for name, value in (("count", count), ("pairs", pairs)):
        if value < 1:
            raise LabError(f"{name} is {value}; it must be 1 or more")
    here = find_token(corpus, sequence, position)
    near = count_shared(corpus, np.full(len(corpus), here), np.arange(len(corpus)))
    order = np.argsort(-near, kind="stable")
    order = order[order != here]
    nearest = [build_neighbor(corpus, int(n), int(near[n])) for n in order[:count]]
    slots = len(corpus.layers) * corpus.slots
    rng = np.random.default_rng(seed)
    return Neighbors(
        build_neighbor(corpus, here, slots),
        slots,
        nearest,
        int((near[order] >= nearest[-1].shared).sum()) if nearest else 0,
        seed,
        pairs,
        count_pairs(corpus, *rng.integers(len(corpus), size=(2, pairs))),
        count_pairs(corpus, *same_token_pairs(corpus.token, pairs, rng)),
    )


def find_token(corpus: Corpus, sequence: int, position: int) -> int:
    """The index in the corpus of the token at a position of a sequence."""
    check_index("sequence", sequence, corpus.sequences)
    there = np.flatnonzero(corpus.sequence == sequence)
    positions = corpus.position[there]
    if position not in positions:
        kept = f"{positions.min()} to {positions.max()}"
        raise LabError(
            f"sequence {sequence} has no position {position}; the recorded ones are within {kept}"
        )
    return int(there[positions == position][0])


def count_shared(
    corpus: Corpus, a: Int[ndarray, "pair"], b: Int[ndarray, "pair"]
) -> Int[ndarray, "pair"]:
    """Number of slots that the tokens of each pair share, over all layers."""
    total = np.zeros(len(a), np.int64)
    for ids in corpus.ids:
        total += (ids[a][:, :, None] == ids[b][:, None, :]).sum((1, 2))
    return total


def count_pairs(
    corpus: Corpus, a: Int[ndarray, "pair"], b: Int[ndarray, "pair"]
) -> Int[ndarray, "shared"]:
    """How many pairs share 0, 1, ... slots; only pairs from two sequences count."""
    two_sequences = corpus.sequence[a] != corpus.sequence[b]
    slots = len(corpus.layers) * corpus.slots
    return np.bincount(
        count_shared(corpus, a[two_sequences], b[two_sequences]), minlength=slots + 1
    )


def same_token_pairs(
    token: Int[ndarray, "token"], pairs: int, rng: np.random.Generator
) -> tuple[Int[ndarray, "pair"], Int[ndarray, "pair"]]:
    """Random tokens, and for each a random token with the same id."""
    order = np.argsort(token, kind="stable")
    _, group, counts = np.unique(token, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    a = rng.integers(len(token), size=pairs)
    of = group[a]
    return a, order[first[of] + rng.integers(counts[of])]


def build_neighbor(corpus: Corpus, n: int, near: int) -> Neighbor:
    """Token n of the corpus as a neighbor that shares `near` slots."""
    id = int(corpus.token[n])
    place = int(corpus.sequence[n]), int(corpus.position[n])
    return Neighbor(*place, id, corpus.texts[id], near)
