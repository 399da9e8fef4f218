"""Linear probes: what can be read off a residual stream, a layer at a time.

A logistic regression from what stands at a point to a label a token, fitted on some sequences and
scored on others: tokens of one sequence are too much alike to be divided. Beside its accuracy stand
two that need no insight: always to name the commonest label, and the same regression where the
tokens of each sequence have swapped their labels, or whole sequences where all tokens of one have
the same. A probe that succeeds says that the label is
there to be read, not that the model reads it (Hewitt and Liang, arXiv:1909.03368).

    labels = [[token.channel for token in reply_tokens(r, lab.tokenizer)] for r in replies]
    probe(lab, replies, labels).layers[2].accuracy
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from oss_lab.analysis.statistics.bootstrap import resampled_interval
from oss_lab.analysis.statistics.information import Shuffle, shuffled_within
from oss_lab.analysis.statistics.shares import wilson
from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, check_points
from oss_lab.progress import progress

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTY = 1.0
"""Of half the squared weights, against the summed loss in nats; features are standardized."""
STEPS = 2000  # of L-BFGS, at most
SHUFFLES = 3
SCORED = 0.3  # of the sequences


@dataclass(frozen=True)
class LayerProbe:
    """The probe of one layer; shares of the scored tokens.

    Attributes:
        layer: None for a point outside the layers.
        interval: at 95 %, on each side the wider of Wilson's over tokens and of sequences drawn
            again, since tokens of one sequence err together.
        fitted: the accuracy on the tokens that it was fitted on.
        shuffled: where labels were swapped before fitting and scoring, a share each time.
        converged: False where some fit ran out of steps.
    """

    layer: int | None
    accuracy: float
    interval: tuple[float, float]
    fitted: float
    shuffled: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Probed:
    """Probes of one label at one point.

    Attributes:
        labels: those that occur where the probes were fitted.
        majority: accuracy of always naming the commonest of them.
        tokens: how many were fitted on and scored on.
        fitted_on, scored_on: the numbers of the sequences.
        penalty: see `PENALTY`.
    """

    point: str
    labels: tuple[Hashable, ...]
    layers: tuple[LayerProbe, ...]
    majority: float
    tokens: tuple[int, int]
    fitted_on: tuple[int, ...]
    scored_on: tuple[int, ...]
    seed: int
    penalty: float = PENALTY


@dataclass(frozen=True)
class Sample:
    """Labeled tokens, sequence after sequence.

    Attributes:
        labels: numbers; those that occur where probes are fitted come first.
        sequence: each token's; it rises.
        fitted: which tokens probes are fitted on; the others are scored.
    """

    labels: Int[ndarray, "token"]
    sequence: Int[ndarray, "token"]
    fitted: Bool[ndarray, "token"]


def probe(
    lab: "Lab",
    sequences: "Sequence[Prompt]",
    labels: Sequence[Sequence[Hashable]],
    *,
    point: str = "resid.post",
    layers: Sequence[int] | None = None,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Probed:
    """Probe every layer of a point for a label, under the interventions in force.

    Args:
        labels: one a token, in the order of `Lab.trace`; None leaves the token out.
        point: one of shape [seq hidden].
        layers: None for all.
        seed: decides which sequences are scored, the swaps and the interval.

    Raises:
        LabError: the labels do not fit the sequences, or too little is labeled to be divided.
    """
    check_points([point])
    if POINTS[point].axes != ("seq", "hidden"):
        raise LabError(f"{point} is {' '.join(POINTS[point].axes)}; a probe needs seq hidden")
    if shuffles < 0:
        raise LabError(f"shuffles is {shuffles}; it must be 0 or more")
    sample, names = divided(lab, sequences, labels, seed)
    features = read_off(lab, sequences, labels, point, layers)
    draw = np.random.default_rng([seed, 1])
    swap = swaps(sample)
    swapped = [swap(draw) for _ in range(shuffles)]
    found = [
        probed_layer(layer, standardized(values, sample.fitted), sample, swapped, seed)
        for layer, values in progress(features.items(), "probe", "layer")
    ]
    commonest = np.bincount(sample.labels[sample.fitted]).argmax()
    scored = ~sample.fitted
    fitted_on, scored_on = (
        tuple(np.unique(sample.sequence[part]).tolist()) for part in (sample.fitted, scored)
    )
    return Probed(
        point,
        names,
        tuple(found),
        float((sample.labels[scored] == commonest).mean()),
        (int(sample.fitted.sum()), int(scored.sum())),
        fitted_on,
        scored_on,
        seed,
    )


def divided(
    lab: "Lab", sequences: "Sequence[Prompt]", labels: Sequence[Sequence[Hashable]], seed: int
) -> tuple[Sample, tuple[Hashable, ...]]:
    """The labeled tokens, whole sequences of them set aside to be scored, and the labels' names.

    Raises:
        LabError: lengths differ, or less than two sequences or labels are there.
    """
    if len(sequences) != len(labels):
        raise LabError(f"there are labels for {len(labels)} of {len(sequences)} sequences")
    for n, (of, each) in enumerate(zip(sequences, labels, strict=True)):
        if len(each) != (length := len(lab.tokens_of(of))):
            raise LabError(f"sequence {n} has {length} tokens and {len(each)} labels")
    pairs = [(n, x) for n, each in enumerate(labels) for x in each if x is not None]
    there = sorted({n for n, _ in pairs})
    if len(there) < 2:
        raise LabError(f"{len(there)} sequences have labels; fitting and scoring need one each")
    order = np.random.default_rng([seed, 0]).permutation(there)
    scored = set(order[: max(1, round(SCORED * len(there)))].tolist())
    names = tuple(dict.fromkeys(x for n, x in pairs if n not in scored))
    if len(names) < 2:
        only = ", ".join(map(repr, names))
        raise LabError(f"all tokens to fit on are labeled {only}; a probe needs two labels")
    unseen = dict.fromkeys(x for n, x in pairs if n in scored)
    numbers = {name: k for k, name in enumerate(dict.fromkeys((*names, *unseen)))}
    sequence = np.array([n for n, _ in pairs])
    numbered = np.array([numbers[x] for _, x in pairs])
    return Sample(numbered, sequence, ~np.isin(sequence, list(scored))), names


def read_off(
    lab: "Lab",
    sequences: "Sequence[Prompt]",
    labels: Sequence[Sequence[Hashable]],
    point: str,
    layers: Sequence[int] | None,
) -> dict[int | None, Float[ndarray, "token hidden"]]:
    """What stands at the point, by layer, for every labeled token."""
    kept: dict[int | None, list[ndarray]] = {}
    for of, each in zip(sequences, labels, strict=True):
        positions = [position for position, label in enumerate(each) if label is not None]
        if positions:
            trace = lab.trace(of, [point], layers=layers, positions=positions)
            for layer in trace.layers_of(point) or (None,):
                kept.setdefault(layer, []).append(trace.tensor(point, layer).float().numpy())
    return {layer: np.concatenate(parts) for layer, parts in kept.items()}


def swaps(sample: Sample) -> Shuffle:
    """Swaps labels between the tokens of a sequence; where they have but one label, between the
    sequences that are fitted on, and between those that are scored."""
    _, first, number = np.unique(sample.sequence, return_index=True, return_inverse=True)
    whole, part = sample.labels[first], sample.fitted[first]
    if (whole[number] != sample.labels).any():
        return shuffled_within(sample.labels, sample.sequence)

    def shuffle(draw: np.random.Generator) -> Int[ndarray, "token"]:
        dealt = whole.copy()
        for each in (part, ~part):
            dealt[each] = draw.permutation(whole[each])
        return dealt[number]

    return shuffle


def standardized(
    values: Float[ndarray, "token hidden"], fitted: Bool[ndarray, "token"]
) -> Float[ndarray, "token hidden"]:
    """Features of mean 0 and variance 1 where probes are fitted; one that never varies stays 0."""
    wide = values.astype(np.float64)
    mean, spread = wide[fitted].mean(0), wide[fitted].std(0)
    return (wide - mean) / np.where(spread > 1e-12, spread, 1)


def probed_layer(
    layer: int | None,
    features: Float[ndarray, "token hidden"],
    sample: Sample,
    swapped: Sequence[Int[ndarray, "token"]],
    seed: int,
) -> LayerProbe:
    """The probe of one layer and its controls."""
    scored, models = ~sample.fitted, []

    def right(labels: Int[ndarray, "token"]) -> Bool[ndarray, "token"]:
        models.append(fit(features[sample.fitted], labels[sample.fitted]))
        return models[-1].predict(features) == labels

    hits = right(sample.labels)
    shuffled = tuple(float(right(labels)[scored].mean()) for labels in swapped)
    return LayerProbe(
        layer,
        float(hits[scored].mean()),
        interval(hits[scored], sample.sequence[scored], seed),
        float(hits[sample.fitted].mean()),
        shuffled,
        all(int(model.n_iter_.max()) < STEPS for model in models),
    )


def fit(
    features: Float[ndarray, "token hidden"], labels: Int[ndarray, "token"]
) -> "LogisticRegression":
    """A multinomial logistic regression with this module's penalty."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says so
        return LogisticRegression(C=1 / PENALTY, max_iter=STEPS).fit(features, labels)


def interval(
    hits: Bool[ndarray, "token"], sequence: Int[ndarray, "token"], seed: int
) -> tuple[float, float]:
    """At 95 %: on each side the wider of Wilson's over tokens and a bootstrap over sequences."""
    low, high = wilson(int(hits.sum()), len(hits))
    _, number = np.unique(sequence, return_inverse=True)
    right, count = np.bincount(number, weights=hits), np.bincount(number)
    least, most = resampled_interval(
        lambda right, count, axis: right.sum(axis) / count.sum(axis), right, count, seed=[seed, 2]
    )
    return min(low, least), max(high, most)
