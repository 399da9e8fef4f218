"""What the sinks do, head by head: how much attention they take, where, and what it depends on.

    traces = lab.collect(replies, ["attn.sink", "attn.sink_mass"], "traces/")
    report = sink_report(lab.config, traces)
    report.mean, report.by_channel.mean, report.behavior        # [layer head], [group layer head]

A token with few visible keys gives its sink a large share, whatever the scores. `by_position` shows
this, and `if_scores_were_0` is the mass that the sink would take if every score were 0. What a head
depends on is computed from position SETTLED on; `behavior.py` has the thresholds. Intervals are at
95%, over resampled sequences.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.sinks.behavior import (
    NEARLY_ALL,
    SETTLED,
    SOME,
    Behavior,
    Factor,
    Tokens,
    classify_heads,
    explain_mass,
    group_positions,
)
from oss_lab.analysis.statistics.bootstrap import quotient_interval
from oss_lab.analysis.statistics.explained import ExplainedVariance, sum_by_group
from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import TRACE, check_arguments, check_value
from oss_lab.record.trace import Trace

POINTS = ("attn.sink", "attn.sink_mass")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class GroupMeans:
    """Means of the sink mass over the tokens of each group.

    Attributes:
        tokens: how many each group has.
    """

    names: tuple[str, ...]
    tokens: Int[ndarray, "group"]
    mean: Float[ndarray, "group layer head"]
    interval: Float[ndarray, "2 group layer head"]


@dataclass(frozen=True)
class SinkReport:
    """The sinks over some sequences.

    Attributes:
        layers, heads: their indices in the model.
        sink: the learned logit.
        mean, interval, spread, quantiles: of the sink mass over all tokens; `spread` is the
            standard deviation, `quantiles` are at QUANTILES.
        by_channel: groups are channels, or roles of messages without one.
        by_part: groups are content and format.
        by_position: groups are ranges of positions: 0, 1, 2 to 3, 4 to 7 ...
        keys: mean number of visible keys in each of these ranges.
        if_scores_were_0: the mass that the sink would take among that many keys.
        often_all, often_some: shares of tokens with a mass of at least NEARLY_ALL or SOME, from
            position SETTLED on.
        explained: shares of the mass's variance that labels explain, from position SETTLED on;
            each array is [layer head]. `position` is the range of positions, and `token beside
            position` is what the token's id adds to it.
        behavior: the kind of each head; its content is `token beside position`.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    sequences: int
    tokens: int
    seed: int
    sink: Float[ndarray, "layer head"]
    mean: Float[ndarray, "layer head"]
    interval: Float[ndarray, "2 layer head"]
    spread: Float[ndarray, "layer head"]
    quantiles: Float[ndarray, "quantile layer head"]
    by_channel: GroupMeans
    by_part: GroupMeans
    by_position: GroupMeans
    keys: Float[ndarray, "group layer"]
    if_scores_were_0: Float[ndarray, "group layer head"]
    often_all: Float[ndarray, "layer head"]
    often_some: Float[ndarray, "layer head"]
    explained: dict[Factor, ExplainedVariance]
    behavior: tuple[tuple[Behavior, ...], ...]


@check_arguments
def sink_report(config: ModelConfig, traces: Iterable[Trace], *, seed: int = 0) -> SinkReport:
    """Report on traces that hold POINTS, with the same layers and heads in each.

    Args:
        config: of the model that was traced.
        seed: of the draws and shuffles.

    Raises:
        LabError: a trace lacks a point, or has another model or other heads; or fewer than two
            traces have tokens from position SETTLED on.
    """
    every = list(traces)
    layers, heads, sink = check_traces(config, every)
    tokens = join_traces(every)
    mass, settled = tokens.mass, tokens.position >= SETTLED
    windows = [config.window(layer) or np.inf for layer in layers]
    keys = np.minimum(tokens.position[:, None] + 1, windows)
    if_0 = np.exp(sink) / (np.exp(sink) + keys[:, :, None])
    places, place = group_positions(tokens.position)
    channels, channel = np.unique(tokens.channel, return_inverse=True)
    parts, part = np.unique(tokens.part, return_inverse=True)
    whole = group_means(tokens, np.zeros_like(place), ["all"], seed)
    found = explain_mass(tokens, seed)
    often_all, often_some = (mass[settled] >= NEARLY_ALL).mean(0), (mass[settled] >= SOME).mean(0)
    return SinkReport(
        layers,
        heads,
        len(every),
        len(mass),
        seed,
        sink,
        whole.mean[0],
        whole.interval[:, 0],
        mass.std(0),
        np.quantile(mass, QUANTILES, axis=0),
        group_means(tokens, channel, channels.tolist(), seed),
        group_means(tokens, part, parts.tolist(), seed),
        group_means(tokens, place, places, seed),
        np.stack([keys[place == n].mean(0) for n in range(len(places))]),
        np.stack([if_0[place == n].mean(0) for n in range(len(places))]),
        often_all,
        often_some,
        found,
        classify_heads(often_all, often_some, found),
    )


def check_traces(
    config: ModelConfig, traces: Sequence[Trace]
) -> tuple[tuple[int, ...], tuple[int, ...], Float[ndarray, "layer head"]]:
    """The layers and heads that all traces share, and the sinks' logits."""
    if not traces:
        raise LabError("there are no traces: pass those of two sequences or more")
    first = traces[0]
    for number, trace in enumerate(traces):
        check_value(f"trace {number}", TRACE, trace)
        if lacking := [point for point in POINTS if point not in trace.selection.points]:
            raise LabError(f"trace {number} has no {lacking[0]}: trace {' and '.join(POINTS)}")
        chosen = (trace.layers, trace.selection.layers, trace.selection.heads)
        if chosen != (first.layers, first.selection.layers, first.selection.heads):
            raise LabError(f"trace {number} has other layers or heads than the first one")
        if (trace["attn.sink"].values != first["attn.sink"].values).any():
            raise LabError(
                f"trace {number} has other sinks than the first one: use traces of one model"
            )
    sink = first["attn.sink"].values.astype(np.float64)
    heads = first.selection.heads or tuple(range(config.num_attention_heads))
    if first.layers != config.num_hidden_layers or sink.shape[1] != len(heads):
        raise LabError(
            f"the traces are of a model with {first.layers} layers; the configuration has"
            f" {config.num_hidden_layers} with {config.num_attention_heads} heads"
        )
    return first.layers_of("attn.sink"), heads, sink


def join_traces(traces: Sequence[Trace]) -> Tokens:
    """All tokens that the traces recorded."""
    labels = [[trace.labels[n] for n in trace.positions] for trace in traces]
    kept = [len(each) for each in labels]
    return Tokens(
        np.concatenate([t["attn.sink_mass"].values for t in traces], axis=1)
        .transpose(1, 0, 2)
        .astype(np.float64),
        np.repeat(np.arange(len(traces)), kept),
        np.concatenate([trace.positions for trace in traces]),
        np.array([trace.tokens[n] for trace in traces for n in trace.positions]),
        np.array([each.section for of in labels for each in of]),
        np.array([each.part for of in labels for each in of]),
    )


def group_means(
    tokens: Tokens, label: Int[ndarray, "token"], names: Sequence[str], seed: int
) -> GroupMeans:
    """Mean sink mass of each label, an index into `names`, with intervals over sequences."""
    sequences, axes = int(tokens.sequence.max()) + 1, tokens.mass.shape[1:]
    cells = label * sequences + tokens.sequence
    used, cell = np.unique(cells, return_inverse=True)
    sums = np.zeros((len(names) * sequences, *axes))
    sums[used] = sum_by_group(tokens.mass, cell)
    sums = sums.reshape(len(names), sequences, *axes)
    counts = np.bincount(cells, minlength=len(names) * sequences).reshape(len(names), sequences)
    by_sequence = counts.T[:, :, None, None]
    interval = quotient_interval(sums.swapaxes(0, 1), by_sequence, seed)
    mean = sums.sum(1) / counts.sum(1)[:, None, None]
    return GroupMeans(tuple(names), counts.sum(1), mean, interval)
