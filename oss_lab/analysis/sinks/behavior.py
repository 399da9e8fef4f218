"""How a sink behaves: what its mass depends on, and which of five kinds its head is.

The kinds are idle, seldom, position-gated, content-gated and neither. The thresholds are below,
and the first kind that fits is a head's kind.

A token may have the same position in every sequence, as in a shared system message. To separate the
effect of the token from that of its position, tokens are compared within a range of positions;
ranges double in length.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.statistics.explained import ExplainedVariance, explain_variance
from oss_lab.errors import LabError

SETTLED = 16  # the first position at which a head's behavior is judged
# A sink is idle if its mass is at least NEARLY_ALL at a share NEARLY_ALWAYS of the tokens or more.
NEARLY_ALL, NEARLY_ALWAYS = 0.9, 0.9
# It is seldom used if its mass is at least SOME at a share SELDOM of the tokens or less.
SOME, SELDOM = 0.1, 0.1
GATED = 0.2  # a label gates a sink if it explains this share of the variance, beyond chance

Label = Int[ndarray, "token"]
Factor = Literal["position", "token", "token beside position", "channel"]
Behavior = Literal["idle", "seldom", "position-gated", "content-gated", "neither"]


@dataclass(frozen=True)
class Tokens:
    """All tokens of all traces, one trace after another."""

    mass: Float[ndarray, "token layer head"]
    sequence: Int[ndarray, "token"]
    position: Int[ndarray, "token"]
    token: Int[ndarray, "token"]
    channel: ndarray
    part: ndarray


def group_positions(
    position: Int[ndarray, "token"],
) -> tuple[tuple[str, ...], Int[ndarray, "token"]]:
    """Group positions into ranges that double: names of the ranges, and each position's range.

    >>> group_positions(np.array([0, 1, 5, 7]))
    (('0', '1', '4 to 7'), array([0, 1, 2, 2]))
    """
    bits = np.array([int(each).bit_length() for each in position])
    there, label = np.unique(bits, return_inverse=True)
    names = (str(n) if n < 2 else f"{2 ** (n - 1)} to {2**n - 1}" for n in map(int, there))
    return tuple(names), label


def explain_mass(tokens: Tokens, seed: int) -> dict[Factor, ExplainedVariance]:
    """How much of the sink mass from position SETTLED each label explains."""
    settled = tokens.position >= SETTLED
    if len(left := np.unique(tokens.sequence[settled])) < 2:
        raise LabError(
            f"{len(left)} of the traces have tokens from position {SETTLED} on; a sink report needs"
            " two or more such traces"
        )
    sequence = np.searchsorted(left, tokens.sequence[settled])
    place = group_positions(tokens.position[settled])[1]
    token = tokens.token[settled]
    channel = np.unique(tokens.channel[settled], return_inverse=True)[1]
    mass = tokens.mass[settled]
    labels: dict[Factor, tuple[Label, Label | None]] = {
        "position": (place, None),
        "token": (token, None),
        "token beside position": (token, place),
        "channel": (channel, None),
    }
    columns = mass.reshape(len(mass), -1)
    return {
        factor: explain_variance(columns, label, sequence, beside=beside, seed=seed).reshape(
            mass.shape[1:]
        )
        for factor, (label, beside) in labels.items()
    }


def classify_heads(
    often_all: Float[ndarray, "layer head"],
    often_some: Float[ndarray, "layer head"],
    found: dict[Factor, ExplainedVariance],
) -> tuple[tuple[Behavior, ...], ...]:
    """The kind of each head: the first whose threshold it meets."""

    def one(layer: int, head: int) -> Behavior:
        if often_all[layer, head] >= NEARLY_ALWAYS:
            return "idle"
        if often_some[layer, head] <= SELDOM:
            return "seldom"
        position, content = found["position"], found["token beside position"]
        more = position if position.excess[layer, head] >= content.excess[layer, head] else content
        gated = more.excess[layer, head] >= GATED
        if not (gated and more.share[layer, head] > more.chance_high[layer, head]):
            return "neither"
        return "position-gated" if more is position else "content-gated"

    layers, heads = often_all.shape
    return tuple(tuple(one(layer, head) for head in range(heads)) for layer in range(layers))
