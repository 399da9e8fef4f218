"""Linear probes: what can be read linearly from a residual stream, layer by layer.

A logistic regression predicts a label for each token from the values at a point. It is fitted on
some sequences and scored on others, because tokens of one sequence are too similar to be split.
Its accuracy comes with two baselines. One always predicts the most common label. The other is the
same regression with the labels shuffled among the tokens of each sequence. If each sequence has
only one label, the labels are shuffled among the sequences. A successful probe shows that the label
is in the values, not that the model uses it (Hewitt and Liang, arXiv:1909.03368).

    labels = [[token.channel for token in label_reply(r, lab.tokenizer)] for r in replies]
    probe(lab, replies, labels).layers[2].accuracy
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from oss_lab.analysis.statistics.bootstrap import bootstrap_interval
from oss_lab.analysis.statistics.information import Shuffle, build_within_shuffle
from oss_lab.analysis.statistics.shares import wilson
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.points import POINTS, check_points
from oss_lab.hooks.selection import Integers
from oss_lab.progress import track_progress

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.lab.prompts import Prompt

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTY = 1.0
"""Factor of half the squared weights, added to the summed loss in nats.

Features are standardized.
"""
STEPS = 2000  # of L-BFGS, at most
SHUFFLES = 3
SCORED = 0.3  # share of the sequences that are scored


@dataclass(frozen=True)
class LayerProbe:
    """The probe of one layer. Accuracies are shares of the scored tokens.

    Attributes:
        layer: None for a point outside the layers.
        interval: at 95%. Each bound is the wider of Wilson's over tokens and a bootstrap over
            sequences, since errors within one sequence are correlated.
        fitted: the accuracy on the tokens that were fitted.
        shuffled: the accuracy with labels shuffled before fitting and scoring, once per shuffle.
        converged: False if a fit reached its step limit.
    """

    layer: int | None
    accuracy: float
    interval: tuple[float, float]
    fitted: float
    shuffled: tuple[float, ...]
    converged: bool


@dataclass(frozen=True)
class Probes:
    """Probes of one label at one point.

    Attributes:
        labels: the labels of the fitted tokens.
        majority: accuracy of always predicting the most common of them.
        tokens: how many were fitted, and how many were scored.
        fitted_on, scored_on: indices of the sequences.
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
    """Labeled tokens, one sequence after another.

    Attributes:
        labels: as numbers; the labels of fitted tokens have the lowest ones.
        sequence: index of each token's sequence, in ascending order.
        fitted: True for the tokens to fit; the others are scored.
    """

    labels: Int[ndarray, "token"]
    sequence: Int[ndarray, "token"]
    fitted: Bool[ndarray, "token"]


@check_arguments
def probe(
    lab: "Lab",
    sequences: "Sequence[Prompt]",
    labels: Sequence[Sequence[Hashable]],
    *,
    point: str = "resid.post",
    layers: Integers | None = None,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Probes:
    """Probe every layer of a point for a label, under the active interventions.

    Args:
        labels: one per token, in the order of `Lab.trace`; None leaves the token out.
        point: one with axes [seq hidden].
        layers: None for all.
        seed: for the choice of scored sequences, the shuffles and the interval.

    Raises:
        LabError: the labels do not match the sequences, or too few tokens are labeled.
    """
    check_points([point])
    if POINTS[point].axes != ("seq", "hidden"):
        raise LabError(f"{point} has axes {' '.join(POINTS[point].axes)}; a probe needs seq hidden")
    if shuffles < 0:
        raise LabError(f"shuffles is {shuffles}; it must be 0 or more")
    sample, names = split_sample(lab, sequences, labels, seed)
    features = read_features(lab, sequences, labels, point, layers)
    draw = np.random.default_rng([seed, 1])
    swap = choose_shuffle(sample)
    swapped = [swap(draw) for _ in range(shuffles)]
    found = [
        probe_layer(layer, standardize(values, sample.fitted), sample, swapped, seed)
        for layer, values in track_progress(features.items(), "probe", "layer")
    ]
    most_common = np.bincount(sample.labels[sample.fitted]).argmax()
    scored = ~sample.fitted
    fitted_on, scored_on = (
        tuple(np.unique(sample.sequence[part]).tolist()) for part in (sample.fitted, scored)
    )
    return Probes(
        point,
        names,
        tuple(found),
        float((sample.labels[scored] == most_common).mean()),
        (int(sample.fitted.sum()), int(scored.sum())),
        fitted_on,
        scored_on,
        seed,
    )


def split_sample(
    lab: "Lab", sequences: "Sequence[Prompt]", labels: Sequence[Sequence[Hashable]], seed: int
) -> tuple[Sample, tuple[Hashable, ...]]:
    """The labeled tokens, split by sequence into fitted and scored, and the labels' names.

    Raises:
        LabError: lengths differ, or there are fewer than two labeled sequences or labels.
    """
    if len(sequences) != len(labels):
        raise LabError(f"there are labels for {len(labels)} of {len(sequences)} sequences")
    for n, (of, each) in enumerate(zip(sequences, labels, strict=True)):
        if len(each) != (length := len(lab.tokens_of(of))):
            raise LabError(f"sequence {n} has {length} tokens and {len(each)} labels")
    pairs = [(n, x) for n, each in enumerate(labels) for x in each if x is not None]
    there = sorted({n for n, _ in pairs})
    if len(there) < 2:
        raise LabError(f"{len(there)} sequences have labels; a probe needs at least two")
    order = np.random.default_rng([seed, 0]).permutation(there)
    scored = set(order[: max(1, round(SCORED * len(there)))].tolist())
    names = tuple(dict.fromkeys(x for n, x in pairs if n not in scored))
    if len(names) < 2:
        only = ", ".join(map(repr, names))
        raise LabError(f"all fitted tokens are labeled {only}; a probe needs two labels")
    unseen = dict.fromkeys(x for n, x in pairs if n in scored)
    numbers = {name: k for k, name in enumerate(dict.fromkeys((*names, *unseen)))}
    sequence = np.array([n for n, _ in pairs])
    numbered = np.array([numbers[x] for _, x in pairs])
    return Sample(numbered, sequence, ~np.isin(sequence, list(scored))), names


def read_features(
    lab: "Lab",
    sequences: "Sequence[Prompt]",
    labels: Sequence[Sequence[Hashable]],
    point: str,
    layers: Integers | None,
) -> dict[int | None, Float[ndarray, "token hidden"]]:
    """The values at the point, by layer, for every labeled token."""
    kept: dict[int | None, list[ndarray]] = {}
    for of, each in zip(sequences, labels, strict=True):
        positions = [position for position, label in enumerate(each) if label is not None]
        if positions:
            trace = lab.trace(of, [point], layers=layers, positions=positions)
            for layer in trace.layers_of(point) or (None,):
                kept.setdefault(layer, []).append(trace.tensor(point, layer).float().numpy())
    return {layer: np.concatenate(parts) for layer, parts in kept.items()}


def choose_shuffle(sample: Sample) -> Shuffle:
    """A function that shuffles labels among the tokens of each sequence.

    If each sequence has only one label, it shuffles them among the fitted sequences, and among the
    scored ones.
    """
    _, first, number = np.unique(sample.sequence, return_index=True, return_inverse=True)
    whole, part = sample.labels[first], sample.fitted[first]
    if (whole[number] != sample.labels).any():
        return build_within_shuffle(sample.labels, sample.sequence)

    def shuffle(draw: np.random.Generator) -> Int[ndarray, "token"]:
        swapped = whole.copy()
        for each in (part, ~part):
            swapped[each] = draw.permutation(whole[each])
        return swapped[number]

    return shuffle


def standardize(
    values: Float[ndarray, "token hidden"], fitted: Bool[ndarray, "token"]
) -> Float[ndarray, "token hidden"]:
    """Features with mean 0 and variance 1 over the fitted tokens; a constant feature is 0."""
    wide = values.astype(np.float64)
    mean, spread = wide[fitted].mean(0), wide[fitted].std(0)
    return (wide - mean) / np.where(spread > 1e-12, spread, 1)


def probe_layer(
    layer: int | None,
    features: Float[ndarray, "token hidden"],
    sample: Sample,
    swapped: Sequence[Int[ndarray, "token"]],
    seed: int,
) -> LayerProbe:
    """Fit and score the probe of one layer, and its controls."""
    scored, models = ~sample.fitted, []

    def right(labels: Int[ndarray, "token"]) -> Bool[ndarray, "token"]:
        models.append(fit(features[sample.fitted], labels[sample.fitted]))
        return models[-1].predict(features) == labels

    hits = right(sample.labels)
    shuffled = tuple(float(right(labels)[scored].mean()) for labels in swapped)
    return LayerProbe(
        layer,
        float(hits[scored].mean()),
        accuracy_interval(hits[scored], sample.sequence[scored], seed),
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported in `converged`
        return LogisticRegression(C=1 / PENALTY, max_iter=STEPS).fit(features, labels)


def accuracy_interval(
    hits: Bool[ndarray, "token"], sequence: Int[ndarray, "token"], seed: int
) -> tuple[float, float]:
    """The 95% interval of an accuracy; see `LayerProbe.interval`."""
    low, high = wilson(int(hits.sum()), len(hits))
    _, number = np.unique(sequence, return_inverse=True)
    right, count = np.bincount(number, weights=hits), np.bincount(number)
    least, most = bootstrap_interval(
        lambda right, count, axis: right.sum(axis) / count.sum(axis), right, count, seed=[seed, 2]
    )
    return min(low, least), max(high, most)
