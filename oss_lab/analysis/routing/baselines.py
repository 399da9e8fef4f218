"""How well does the token alone predict its experts? Baselines for any claim about experts.

Half of the sequences are counted, the others are predicted. For every token the prediction is the
experts that were chosen most often

- in its layer (`most_used`),
- for its id (`token`), or else in the layer,
- for its id and the previous id (`bigram`), or else for its id,

and, as a control, for its id after the ids of each sequence are shuffled among its tokens. The
bigram is the baseline that RouterInterp (Lasy and Cai, SPAR, 2026) compares its explanations with.
How much the most-used experts explain is the question of arXiv:2601.03425, the "standing
committee". Sequences with the same beginning, such as one system message, make all baselines except
the control look better than on new text: record only the tokens that differ between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from oss_lab.analysis.routing.corpus import Corpus
from oss_lab.analysis.statistics.bootstrap import Estimate, ratio, resample_counts
from oss_lab.analysis.statistics.information import build_within_shuffle
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments

Keys = Int[ndarray, "token"]


@dataclass(frozen=True)
class Predictability:
    """Share of correctly predicted slots [layer]; intervals are over held-out sequences.

    Attributes:
        fitted, held_out: numbers of sequences.
        tokens: number of held-out tokens.
        chance: the share for experts drawn at random.
        shuffled: the mean of `shuffles` controls.
        known_token, known_bigram: share of held-out tokens whose id (and previous id) occurs in
            the fitted sequences.
    """

    layers: tuple[int, ...]
    fitted: int
    held_out: int
    tokens: int
    seed: int
    resamples: int
    shuffles: int
    chance: float
    most_used: Estimate
    token: Estimate
    bigram: Estimate
    shuffled: Estimate
    known_token: float
    known_bigram: float


@check_arguments
def predictability(
    corpus: Corpus, *, resamples: int = 500, shuffles: int = 10, seed: int = 0
) -> Predictability:
    """Fit and score every baseline.

    Raises:
        LabError: there are fewer than two sequences, or `shuffles` or `resamples` is below 1.
    """
    if corpus.sequences < 2:
        raise LabError("the corpus has one sequence; the baselines need at least two")
    if shuffles < 1:
        raise LabError(f"shuffles is {shuffles}; it must be 1 or more")
    rng = np.random.default_rng(seed)
    of_sequence = rng.permutation(corpus.sequences) >= corpus.sequences // 2
    held = of_sequence[corpus.sequence]
    draws = resample_counts(int(of_sequence.sum()), resamples, seed)
    token = np.unique(corpus.token, return_inverse=True)[1]
    pairs = np.stack((corpus.previous, corpus.token))
    bigram = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()

    def share(tables: Sequence[Keys]) -> Float[ndarray, "layer sequence"]:
        hits = np.stack([count_hits(corpus, n, tables, held) for n in range(len(corpus.layers))])
        return np.stack([np.bincount(corpus.sequence[held], h, corpus.sequences) for h in hits])

    def estimate(hits: Float[ndarray, "layer sequence"]) -> Estimate:
        slots = np.bincount(corpus.sequence[held], minlength=corpus.sequences) * corpus.slots
        return Estimate.of(
            ratio(draws @ hits[:, of_sequence].T, (draws @ slots[of_sequence])[:, None])
        )

    controls = [share([build_within_shuffle(token, corpus.sequence)(rng)]) for _ in range(shuffles)]
    return Predictability(
        corpus.layers,
        int((~of_sequence).sum()),
        int(of_sequence.sum()),
        int(held.sum()),
        seed,
        resamples,
        shuffles,
        corpus.slots / corpus.experts,
        estimate(share([])),
        estimate(share([token])),
        estimate(share([token, bigram])),
        estimate(np.mean(controls, axis=0)),
        float(is_known(token, held)[held].mean()),
        float(is_known(bigram, held)[held].mean()),
    )


def count_hits(
    corpus: Corpus, layer: int, tables: Sequence[Keys], held: Bool[ndarray, "token"]
) -> Int[ndarray, "held"]:
    """How many experts of each held-out token are predicted by the last table with its key.

    Args:
        tables: keys of all tokens, coarse ones first; without a table the layer's use decides.
    """
    fitted, wanted = corpus.ids[layer][~held], corpus.ids[layer][held]
    use = np.bincount(fitted.ravel(), minlength=corpus.experts)
    predicted = np.broadcast_to(most_chosen(use[None], use, corpus.slots), wanted.shape)
    for keys in tables:
        height = int(keys.max()) + 1
        cells = (keys[~held] * corpus.experts)[:, None] + fitted
        counts = np.bincount(cells.ravel(), minlength=height * corpus.experts)
        best = most_chosen(counts.reshape(height, corpus.experts), use, corpus.slots)
        predicted = np.where(is_known(keys, held)[held, None], best[keys[held]], predicted)
    return (predicted[:, :, None] == wanted[:, None, :]).sum((1, 2))


def most_chosen(
    counts: Int[ndarray, "key expert"], use: Int[ndarray, "expert"], slots: int
) -> Int[ndarray, "key slot"]:
    """The experts with the highest counts; ties go to those that the layer uses more."""
    tie = use / (use.sum() + 1)  # below one count
    return np.argsort(-(counts + tie), axis=1, kind="stable")[:, :slots]


def is_known(keys: Keys, held: Bool[ndarray, "token"]) -> Bool[ndarray, "token"]:
    """Whether each token's key occurs among the fitted tokens."""
    return (np.bincount(keys[~held], minlength=int(keys.max()) + 1) > 0)[keys]
