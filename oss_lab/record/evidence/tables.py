"""Tidy tables of a bundle: a row a number, over all prompts together.

`channel` is that of the token's message, or its role where it has none (the prompt), headers and
ends included. Traces are read one at a time.
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
    """`prompt`, `name`, `effort`, `channel` (`format` is what is no content), `tokens`."""
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
    """`effort`, `channel`, `layer`, `expert`; `choices` of it, their `share` of the layer's choices
    there, and the mean `weight` that it had when it was chosen (NaN where it never was)."""
    experts = int(evidence.stamp.config["num_experts"])
    sums: dict[Key, Numbers] = {}
    for key, trace, rows in parts(evidence):
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
        frames.append(tidy(key, ("layer", "expert"), values))
    return pandas.concat(frames, ignore_index=True)


def margins(evidence: "Evidence") -> pandas.DataFrame:
    """`effort`, `channel`, `layer`; of so many `tokens` the `mean` margin, its 5 % quantile `low`,
    `median` and 95 % quantile `high`, in router logits."""
    gathered: defaultdict[Key, list[Numbers]] = defaultdict(list)
    for key, trace, rows in parts(evidence):
        gathered[key].append(trace["moe.margin"].values[:, rows])
    frames = []
    for key, pieces in gathered.items():
        x = np.concatenate(pieces, 1, dtype=np.float64)
        values = {"tokens": np.full(len(x), x.shape[1]), "mean": x.mean(1)}
        values |= {name: np.quantile(x, at, axis=1) for name, at in QUANTILES.items()}
        frames.append(tidy(key, ("layer",), values))
    return pandas.concat(frames, ignore_index=True)


def sinks(evidence: "Evidence") -> pandas.DataFrame:
    """`effort`, `channel`, `layer`, `head`; of so many `tokens` the `mean` share of attention that
    went to the sink, and its standard deviation `std`."""
    sums: dict[Key, Numbers] = {}  # of x and of its square: [layer head]
    counts: defaultdict[Key, int] = defaultdict(int)
    for key, trace, rows in parts(evidence):
        x = trace["attn.sink_mass"].values[:, rows].astype(np.float64)
        sums[key] = sums.get(key, 0) + np.stack((x.sum(1), (x * x).sum(1)))
        counts[key] += x.shape[1]
    frames = []
    for key, (total, squares) in sums.items():
        mean = total / counts[key]
        std = np.sqrt(np.maximum(0, squares / counts[key] - mean**2))
        tokens = np.full(mean.shape, counts[key])
        frames.append(tidy(key, ("layer", "head"), {"tokens": tokens, "mean": mean, "std": std}))
    return pandas.concat(frames, ignore_index=True)


def parts(evidence: "Evidence") -> Iterator[tuple[Key, Trace, NDArray[np.intp]]]:
    """Each trace once for each channel in it, with the positions there."""
    for reply, trace in zip(evidence.replies, evidence.traces, strict=True):
        places = np.array([label.section for label in trace.labels])
        for channel in dict.fromkeys(places.tolist()):
            yield (reply.effort, channel), trace, np.flatnonzero(places == channel)


def tidy(key: Key, axes: tuple[str, ...], values: dict[str, NDArray]) -> pandas.DataFrame:
    """A row for each cell of arrays that share these axes."""
    shape = next(iter(values.values())).shape
    places = dict(zip(axes, np.indices(shape).reshape(len(shape), -1), strict=True))
    flat = {name: x.ravel() for name, x in values.items()}
    return pandas.DataFrame({"effort": key[0], "channel": key[1], **places, **flat})
