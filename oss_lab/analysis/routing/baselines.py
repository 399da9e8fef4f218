"""How well is routing predicted by the token alone? Baselines for any account of what experts do.

Half of the sequences are counted, the others predicted: for every token the experts that were
chosen most often

- in its layer (`most_used`),
- with its id (`token`), or else in the layer,
- with its id and the one before (`bigram`), or else with its id,

and, as a control, with its id where the ids of each sequence are shuffled among its tokens. The
bigram is the baseline that RouterInterp (Lasy and Cai, SPAR, 2026) holds its explanations against;
how far the most-used experts go is the question of arXiv:2601.03425, the "standing committee".
Sequences that begin alike, such as conversations with one system message, make all but the control
look better than new text would: keep only what differs between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from oss_lab.analysis.routing.corpus import Corpus
from oss_lab.analysis.statistics.bootstrap import Estimate, ratio, resampled
from oss_lab.analysis.statistics.information import shuffled_within
from oss_lab.errors import LabError

Keys = Int[ndarray, "token"]


@dataclass(frozen=True)
class Predictability:
    """Share of slots predicted right on held-out sequences [layer], intervals over these.

    Attributes:
        fitted, held_out: sequences; `tokens` are those of the held-out ones.
        chance: for experts drawn evenly.
        shuffled: the mean of `shuffles` controls.
        known_token, known_bigram: share of held-out tokens that the fitted sequences have.
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


def predictability(
    corpus: Corpus, *, resamples: int = 500, shuffles: int = 10, seed: int = 0
) -> Predictability:
    """Fit and predict with every baseline.

    Raises:
        LabError: there are not two sequences, or `shuffles` or `resamples` is below 1.
    """
    if corpus.sequences < 2:
        raise LabError("there is one sequence; one to count and one to predict are needed")
    if shuffles < 1:
        raise LabError(f"shuffles is {shuffles}; it must be 1 or more")
    rng = np.random.default_rng(seed)
    of_sequence = rng.permutation(corpus.sequences) >= corpus.sequences // 2
    held = of_sequence[corpus.sequence]
    draws = resampled(int(of_sequence.sum()), resamples, seed)
    token = np.unique(corpus.token, return_inverse=True)[1]
    pairs = np.stack((corpus.previous, corpus.token))
    bigram = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()

    def share(tables: Sequence[Keys]) -> Float[ndarray, "layer sequence"]:
        hits = np.stack([hits_of(corpus, n, tables, held) for n in range(len(corpus.layers))])
        return np.stack([np.bincount(corpus.sequence[held], h, corpus.sequences) for h in hits])

    def estimate(hits: Float[ndarray, "layer sequence"]) -> Estimate:
        slots = np.bincount(corpus.sequence[held], minlength=corpus.sequences) * corpus.slots
        return Estimate.of(
            ratio(draws @ hits[:, of_sequence].T, (draws @ slots[of_sequence])[:, None])
        )

    controls = [share([shuffled_within(token, corpus.sequence)(rng)]) for _ in range(shuffles)]
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
        float(known(token, held)[held].mean()),
        float(known(bigram, held)[held].mean()),
    )


def hits_of(
    corpus: Corpus, layer: int, tables: Sequence[Keys], held: Bool[ndarray, "token"]
) -> Int[ndarray, "held"]:
    """How many experts of each held-out token are predicted, by the last table that knows its key.

    Args:
        tables: keys of all tokens, the coarser first; before them comes the layer's use.
    """
    fitted, wanted = corpus.ids[layer][~held], corpus.ids[layer][held]
    use = np.bincount(fitted.ravel(), minlength=corpus.experts)
    predicted = np.broadcast_to(likeliest(use[None], use, corpus.slots), wanted.shape)
    for keys in tables:
        height = int(keys.max()) + 1
        cells = (keys[~held] * corpus.experts)[:, None] + fitted
        counts = np.bincount(cells.ravel(), minlength=height * corpus.experts)
        best = likeliest(counts.reshape(height, corpus.experts), use, corpus.slots)
        predicted = np.where(known(keys, held)[held, None], best[keys[held]], predicted)
    return (predicted[:, :, None] == wanted[:, None, :]).sum((1, 2))


def likeliest(
    counts: Int[ndarray, "key expert"], use: Int[ndarray, "expert"], slots: int
) -> Int[ndarray, "key slot"]:
    """The experts of the highest counts; of equal ones those that the layer uses more."""
    tie = use / (use.sum() + 1)  # below one count
    return np.argsort(-(counts + tie), axis=1, kind="stable")[:, :slots]


def known(keys: Keys, held: Bool[ndarray, "token"]) -> Bool[ndarray, "token"]:
    """Whether the fitted tokens have the key of each token."""
    return (np.bincount(keys[~held], minlength=int(keys.max()) + 1) > 0)[keys]
