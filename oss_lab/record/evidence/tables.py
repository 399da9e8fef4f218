"""Tidy tables of a bundle: one row per number, over all prompts together.

`channel` is the channel of the token's message, or its role if it has none (the prompt). Headers
and end tokens count as part of their message. Traces are read one at a time.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas
from numpy.typing import NDArray

from oss_lab.harmony.messages import CHANNELS
from oss_lab.record.trace import Trace

if TYPE_CHECKING:
    from oss_lab.record.evidence.bundle import Evidence

Key = tuple[str, str]  # effort and channel
Numbers = NDArray[np.float64]
QUANTILES = {"low": 0.05, "median": 0.5, "high": 0.95}


def effort_curve(evidence: "Evidence") -> pandas.DataFrame:
    """`prompt`, `name`, `effort`, `channel` (`format`: all that is not content), `tokens`."""
    return pandas.DataFrame(
        [
            (reply.prompt, evidence.prompts[reply.prompt].name, reply.effort, channel, count)
            for reply in evidence.replies
            for channel in (*CHANNELS, "format")
            for count in [reply.tokens.get(channel, 0)]
        ],
        columns=["prompt", "name", "effort", "channel", "tokens"],
    )


def routes(evidence: "Evidence") -> pandas.DataFrame:
    """`effort`, `channel`, `layer`, `expert`; the number of `choices` of this expert, their `share`
    of all choices in the layer, and its mean `weight` when chosen (NaN if never)."""
    experts = int(evidence.stamp.config["num_experts"])
    sums: dict[Key, Numbers] = {}
    for key, trace, rows in split_by_channel(evidence):
        ids = trace["moe.expert_ids"].values[:, rows].astype(np.int64)
        weights = trace["moe.expert_weights"].values[:, rows]
        counted = np.array(
            [
                [np.bincount(chosen.ravel(), each.ravel(), experts) for each in (one, weight)]
                for chosen, one, weight in zip(ids, np.ones_like(weights), weights, strict=True)
            ],
            dtype=np.float64,
        )
        sums[key] = sums.get(key, 0) + counted
    frames = []
    for key, counted in sums.items():
        choices, weight = counted[:, 0], counted[:, 1]
        mean = np.divide(weight, choices, out=np.full_like(weight, np.nan), where=choices > 0)
        share = choices / choices.sum(1, keepdims=True)
        values = {"choices": choices.astype(np.int64), "share": share, "weight": mean}
        frames.append(build_frame(key, ("layer", "expert"), values))
    return pandas.concat(frames, ignore_index=True)


def margins(evidence: "Evidence") -> pandas.DataFrame:
    """`effort`, `channel`, `layer`; the number of `tokens`, and the `mean`, 5% quantile `low`,
    `median` and 95% quantile `high` of their margins, in router logits."""
    gathered: defaultdict[Key, list[Numbers]] = defaultdict(list)
    for key, trace, rows in split_by_channel(evidence):
        gathered[key].append(trace["moe.margin"].values[:, rows])
    frames = []
    for key, pieces in gathered.items():
        x = np.concatenate(pieces, 1, dtype=np.float64)
        values = {"tokens": np.full(len(x), x.shape[1]), "mean": x.mean(1)}
        values |= {name: np.quantile(x, at, axis=1) for name, at in QUANTILES.items()}
        frames.append(build_frame(key, ("layer",), values))
    return pandas.concat(frames, ignore_index=True)


def sinks(evidence: "Evidence") -> pandas.DataFrame:
    """`effort`, `channel`, `layer`, `head`; the number of `tokens`, and the `mean` and standard
    deviation `std` of the share of their attention that went to the sink."""
    sums: dict[Key, Numbers] = {}  # sums of x and of its square, each [layer head]
    counts: defaultdict[Key, int] = defaultdict(int)
    for key, trace, rows in split_by_channel(evidence):
        x = trace["attn.sink_mass"].values[:, rows].astype(np.float64)
        sums[key] = sums.get(key, 0) + np.stack((x.sum(1), (x * x).sum(1)))
        counts[key] += x.shape[1]
    frames = []
    for key, (total, squares) in sums.items():
        mean = total / counts[key]
        std = np.sqrt(np.maximum(0, squares / counts[key] - mean**2))
        tokens = np.full(mean.shape, counts[key])
        frames.append(
            build_frame(key, ("layer", "head"), {"tokens": tokens, "mean": mean, "std": std})
        )
    return pandas.concat(frames, ignore_index=True)


def split_by_channel(evidence: "Evidence") -> Iterator[tuple[Key, Trace, NDArray[np.intp]]]:
    """Each trace once per channel in it, with the positions on that channel."""
    for reply, trace in zip(evidence.replies, evidence.traces, strict=True):
        places = np.array([label.section for label in trace.labels])
        for channel in dict.fromkeys(places.tolist()):
            yield (reply.effort, channel), trace, np.flatnonzero(places == channel)


def build_frame(key: Key, axes: tuple[str, ...], values: dict[str, NDArray]) -> pandas.DataFrame:
    """One row per cell of arrays that share these axes."""
    shape = next(iter(values.values())).shape
    places = dict(zip(axes, np.indices(shape).reshape(len(shape), -1), strict=True))
    flat = {name: x.ravel() for name, x in values.items()}
    return pandas.DataFrame({"effort": key[0], "channel": key[1], **places, **flat})
