"""An atlas of experts: how much each is used, and for which tokens, channels and groups.

    traces = lab.collect(replies, ["moe.expert_ids"], "traces/")
    corpus = build_routing_corpus(traces, experts=32, groups=tasks)      # a task for each reply
    found = atlas(corpus)
    found.top[2][7]                       the tokens of expert 7 in the third layer of the corpus
    found.groups.lift.value[2, 7]         how much it prefers each task

A lift is P(label | expert) / P(label): 1 is no preference. Every slot of a token counts once. An
expert that prefers a task may only prefer the tokens that occur in the task.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.routing.corpus import Corpus
from oss_lab.analysis.statistics.bootstrap import Estimate, ratio, resample_counts
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments

Draws = Float[ndarray, "draw sequence"]


@dataclass(frozen=True)
class TokenLift:
    """A token that an expert is chosen for.

    Attributes:
        count: number of the expert's slots with this token.
        low, high: bounds of the lift's interval. They do not correct for the selection of the
            highest lifts.
    """

    token: int
    text: str
    count: int
    lift: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelLift:
    """The lift of each label [layer expert label]; `names` are the labels."""

    names: tuple[str, ...]
    lift: Estimate


@dataclass(frozen=True)
class Atlas:
    """How much each expert is used in a corpus, and for what; intervals are over sequences.

    Attributes:
        load: share of the layer's slots, divided by an even share [layer expert]; 1 is even.
        top: for each layer and expert, the tokens with the highest lift, highest first.
        channels, groups: lift of each channel and group.
    """

    layers: tuple[int, ...]
    sequences: int
    tokens: int
    seed: int
    resamples: int
    minimum: int
    load: Estimate
    top: list[list[list[TokenLift]]]
    channels: LabelLift
    groups: LabelLift


@check_arguments
def atlas(
    corpus: Corpus, *, top: int = 10, minimum: int = 10, resamples: int = 500, seed: int = 0
) -> Atlas:
    """Build the atlas of a corpus.

    Args:
        top: how many tokens to list for each expert.
        minimum: list only tokens that have at least this many slots of the expert.

    Raises:
        LabError: one of the counts is below 1.
    """
    for name, value in (("top", top), ("minimum", minimum)):
        if value < 1:
            raise LabError(f"{name} is {value}; it must be 1 or more")
    draws, layers = resample_counts(corpus.sequences, resamples, seed), range(len(corpus.layers))
    group = corpus.group[corpus.sequence]
    return Atlas(
        corpus.layers,
        corpus.sequences,
        len(corpus),
        seed,
        resamples,
        minimum,
        Estimate.stack([relative_load(corpus, layer, draws) for layer in layers]),
        [top_tokens(corpus, layer, draws, top, minimum) for layer in layers],
        label_lift(corpus, corpus.channel, corpus.channels, draws),
        label_lift(corpus, group, corpus.groups, draws),
    )


def relative_load(corpus: Corpus, layer: int, draws: Draws) -> Estimate:
    """Share of the slots, divided by an even share [expert]."""
    nothing = np.zeros(len(corpus), np.int64)
    counts = draws @ corpus.count_by_sequence(layer, nothing, 1)[:, 0]
    return Estimate.of(counts / counts.sum(1, keepdims=True) * corpus.experts)


def label_lift(
    corpus: Corpus, labels: Int[ndarray, "token"], names: tuple[str, ...], draws: Draws
) -> LabelLift:
    """The lift of every label in every layer [layer expert label]."""
    found: list[Estimate] = []
    for layer in range(len(corpus.layers)):
        table = corpus.count_by_sequence(layer, labels, len(names))
        counts = np.tensordot(draws, table, 1)  # draw label expert
        of_expert = counts.sum(1, keepdims=True)
        share = ratio(counts.sum(2, keepdims=True), counts.sum((1, 2), keepdims=True))
        found.append(Estimate.of(ratio(ratio(counts, of_expert), share).transpose(0, 2, 1)))
    return LabelLift(names, Estimate.stack(found))


def top_tokens(
    corpus: Corpus, layer: int, draws: Draws, top: int, minimum: int
) -> list[list[TokenLift]]:
    """For each expert the tokens with the highest lift, highest first."""
    vocab, token = np.unique(corpus.token, return_inverse=True)
    cells = (token * corpus.experts)[:, None] + corpus.ids[layer]
    counts = np.bincount(cells.ravel(), minlength=len(vocab) * corpus.experts)
    counts = counts.reshape(len(vocab), corpus.experts)
    lifts = np.where(counts >= minimum, ratio(counts, counts.sum(0) * token_shares(token)), -np.inf)
    best = np.argsort(-lifts, axis=0, kind="stable")[:top].T  # expert rank
    listed = [(e, t) for e, ranked in enumerate(best) for t in ranked if lifts[t, e] > -np.inf]
    found: list[list[TokenLift]] = [[] for _ in range(corpus.experts)]
    if not listed:  # no token is frequent enough
        return found
    intervals = token_intervals(corpus, layer, draws, token, listed)
    for n, (expert, t) in enumerate(listed):
        bounds = (float(x[n]) for x in (intervals.value, intervals.low, intervals.high))
        id = int(vocab[t])
        found[expert].append(TokenLift(id, corpus.texts[id], int(counts[t, expert]), *bounds))
    return found


def token_shares(token: Int[ndarray, "token"]) -> Float[ndarray, "label 1"]:
    """Each token's share of all tokens."""
    return (np.bincount(token) / len(token))[:, None]


def token_intervals(
    corpus: Corpus,
    layer: int,
    draws: Draws,
    token: Int[ndarray, "token"],
    listed: list[tuple[int, int]],
) -> Estimate:
    """Lifts of (expert, token) pairs; only these are counted per sequence."""
    experts, tokens = np.array(listed, np.int64).reshape(-1, 2).T
    number = np.full((int(token.max()) + 1, corpus.experts), -1)
    number[tokens, experts] = range(len(listed))
    of_slot = number[token[:, None], corpus.ids[layer]]
    sequence = np.broadcast_to(corpus.sequence[:, None], of_slot.shape)
    kept = of_slot >= 0
    together = draws @ tally(sequence[kept], of_slot[kept], corpus.sequences, len(listed))
    wanted, column = np.unique(tokens, return_inverse=True)
    place = np.full(len(number), -1)
    place[wanted] = range(len(wanted))
    kept = place[token] >= 0
    alone = draws @ tally(corpus.sequence[kept], place[token[kept]], corpus.sequences, len(wanted))
    used = draws @ tally(sequence, corpus.ids[layer], corpus.sequences, corpus.experts)
    total = draws @ np.bincount(corpus.sequence, minlength=corpus.sequences)
    base = alone[:, column] / total[:, None]
    return Estimate.of(ratio(ratio(together, used[:, experts]), base))


def tally(
    rows: Int[ndarray, "..."], columns: Int[ndarray, "..."], height: int, width: int
) -> Int[ndarray, "row column"]:
    """How often each pair of row and column occurs."""
    cells = (rows * width + columns).ravel()
    return np.bincount(cells, minlength=height * width).reshape(height, width)
