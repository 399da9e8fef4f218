"""The router's choices over many sequences, in arrays; and intervals from resampled sequences.

    traces = lab.collect(replies, ["moe.expert_ids"], "traces/")
    corpus = routing_corpus(traces, experts=32, groups=tasks)      # a task for each reply

Tokens of one sequence depend on each other, so whole sequences are what is resampled: the
percentile bootstrap at 95 %, of sequences drawn with replacement.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from oss_lab.errors import LabError
from oss_lab.record.trace import Trace

POINT = "moe.expert_ids"


@dataclass(frozen=True)
class Corpus:
    """The choices of every kept token, sequence after sequence.

    Attributes:
        layers: their numbers in the model.
        sequence: which trace a token is of; it rises from token to token.
        position: of a token in its sequence.
        token, previous: ids; `previous` is -1 at the beginning of a sequence.
        channel: index into `channels`, which holds channels, or roles where there is none.
        group: of each sequence, index into `groups`; without groups all have the same, unnamed.
        texts: what each id stands for.
    """

    experts: int
    layers: tuple[int, ...]
    ids: Int[ndarray, "layer token slot"]
    sequence: Int[ndarray, "token"]
    position: Int[ndarray, "token"]
    token: Int[ndarray, "token"]
    previous: Int[ndarray, "token"]
    channel: Int[ndarray, "token"]
    channels: tuple[str, ...]
    group: Int[ndarray, "sequence"]
    groups: tuple[str, ...]
    texts: Mapping[int, str]

    @property
    def sequences(self) -> int:
        return len(self.group)

    @property
    def slots(self) -> int:
        return self.ids.shape[2]

    def __len__(self) -> int:
        """Tokens."""
        return len(self.token)

    def by_sequence(
        self, layer: int, labels: Int[ndarray, "token"], count: int
    ) -> Int[ndarray, "sequence label expert"]:
        """How often each sequence has each of `count` labels with each expert, slot by slot.

        Args:
            layer: row of `ids`.
        """
        cells = ((self.sequence * count + labels) * self.experts)[:, None] + self.ids[layer]
        shape = (self.sequences, count, self.experts)
        return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape)


def routing_corpus(
    traces: Iterable[Trace], experts: int, groups: Sequence[str] | None = None
) -> Corpus:
    """Read traces that hold `moe.expert_ids`, each with the same layers.

    Args:
        experts: in a layer of the model.
        groups: a name for each trace, such as its task.

    Raises:
        LabError: there is no trace, one holds no choices or other layers or experts than said, or
            the groups are not one a trace.
    """
    ids: list[ndarray] = []
    columns: list[list[tuple[int, int, int, int, str]]] = []
    layers, texts = tuple[int, ...](), dict[int, str]()
    for n, trace in enumerate(traces):
        found = trace.layers_of(POINT)
        if found != (layers := layers or found):
            raise LabError(f"trace {n} holds layers {found}, and those before it {layers}")
        ids.append(np.stack([trace.tensor(POINT, layer).numpy() for layer in layers]))
        columns.append([token_of(trace, n, position) for position in trace.positions])
        texts |= {trace.tokens[p]: trace.labels[p].text for p in trace.positions}
    if not ids:
        raise LabError("there is no trace to read the choices of; collect some first")
    if groups is not None and len(groups) != len(ids):
        raise LabError(f"there are {len(ids)} traces and {len(groups)} groups; give one a trace")
    chosen = np.concatenate(ids, 1).astype(np.int64)
    if (highest := int(chosen.max())) >= experts:
        raise LabError(f"a trace has expert {highest}; with {experts} they are 0 to {experts - 1}")
    *numbers, names = zip(*(row for rows in columns for row in rows), strict=True)
    sequence, position, token, previous = (np.array(column) for column in numbers)
    channels, channel = np.unique(np.array(names), return_inverse=True)
    group_names, group = np.unique(np.array(groups or [""] * len(ids)), return_inverse=True)
    return Corpus(
        experts, layers, chosen, sequence, position, token, previous, channel,
        tuple(map(str, channels)), group, tuple(map(str, group_names)), texts,
    )  # fmt: skip


def token_of(trace: Trace, number: int, position: int) -> tuple[int, int, int, int, str]:
    """Sequence, position, token, token before it, and channel."""
    previous = trace.tokens[position - 1] if position else -1
    return number, position, trace.tokens[position], previous, trace.labels[position].section
