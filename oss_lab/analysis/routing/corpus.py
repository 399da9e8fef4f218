"""The router's choices over many sequences, as arrays.

    traces = lab.collect(replies, ["moe.expert_ids"], "traces/")
    corpus = build_routing_corpus(traces, experts=32, groups=tasks)      # a task for each reply

Tokens of one sequence depend on each other, so intervals of these analyses resample whole
sequences with replacement (percentile bootstrap at 95%).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import TRACE, check_arguments, check_value
from oss_lab.record.trace import Trace

POINT = "moe.expert_ids"


@dataclass(frozen=True)
class Corpus:
    """The choices of every recorded token, one sequence after another.

    Attributes:
        layers: their indices in the model.
        sequence: index of each token's trace, in ascending order.
        position: of each token in its sequence.
        token, previous: ids; `previous` is -1 at the start of a sequence.
        channel: index into `channels`, which holds channels, or roles of messages without one.
        group: of each sequence, index into `groups`; without groups all share one with no name.
        texts: the text of each id.
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
        """Number of tokens."""
        return len(self.token)

    def count_by_sequence(
        self, layer: int, labels: Int[ndarray, "token"], count: int
    ) -> Int[ndarray, "sequence label expert"]:
        """How many slots of each sequence have each of `count` labels and each expert.

        Args:
            layer: index into `ids`.
        """
        cells = ((self.sequence * count + labels) * self.experts)[:, None] + self.ids[layer]
        shape = (self.sequences, count, self.experts)
        return np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape)


@check_arguments
def build_routing_corpus(
    traces: Iterable[Trace], experts: int, groups: Sequence[str] | None = None
) -> Corpus:
    """Read traces that hold `moe.expert_ids`, each with the same layers.

    Args:
        experts: how many each layer of the model has.
        groups: one name per trace, such as its task.

    Raises:
        LabError: there are no traces; one has no choices, other layers or too many experts; or
            there is not one group per trace.
    """
    ids: list[ndarray] = []
    columns: list[list[tuple[int, int, int, int, str]]] = []
    layers, texts = tuple[int, ...](), dict[int, str]()
    for n, trace in enumerate(traces):
        check_value(f"trace {n}", TRACE, trace)
        found = trace.layers_of(POINT)
        if found != (layers := layers or found):
            raise LabError(f"trace {n} has layers {found}, but the traces before it have {layers}")
        ids.append(np.stack([trace.tensor(POINT, layer).numpy() for layer in layers]))
        columns.append([token_row(trace, n, position) for position in trace.positions])
        texts |= {trace.tokens[p]: trace.labels[p].text for p in trace.positions}
    if not ids:
        raise LabError("there are no traces: collect some first")
    if groups is not None and len(groups) != len(ids):
        raise LabError(f"there are {len(ids)} traces and {len(groups)} groups; pass one per trace")
    chosen = np.concatenate(ids, 1).astype(np.int64)
    if (highest := int(chosen.max())) >= experts:
        raise LabError(
            f"a trace has expert {highest}; with `experts={experts}` the last is {experts - 1}"
        )
    *numbers, names = zip(*(row for rows in columns for row in rows), strict=True)
    sequence, position, token, previous = (np.array(column) for column in numbers)
    channels, channel = np.unique(np.array(names), return_inverse=True)
    group_names, group = np.unique(np.array(groups or [""] * len(ids)), return_inverse=True)
    return Corpus(
        experts, layers, chosen, sequence, position, token, previous, channel,
        tuple(map(str, channels)), group, tuple(map(str, group_names)), texts,
    )  # fmt: skip


def token_row(trace: Trace, number: int, position: int) -> tuple[int, int, int, int, str]:
    """Sequence, position, token, previous token and channel of one token."""
    previous = trace.tokens[position - 1] if position else -1
    return number, position, trace.tokens[position], previous, trace.labels[position].section
