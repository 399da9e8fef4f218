"""How a sink behaves: what its mass depends on, and which of five kinds its head is.

Idle, seldom, gated by position or by content, or neither: by the thresholds below, the first that
holds. A token that stands at the same place in every sequence, as a common system message's do, is
told from its place by its neighbors in the same doubling of positions only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from oss_lab.analysis.statistics.explained import Explained, explained
from oss_lab.errors import LabError

SETTLED = 16  # the first position at which a head's behavior is judged
NEARLY_ALL, NEARLY_ALWAYS = 0.9, 0.9  # idle: this mass at least, at this share of tokens at least
SOME, SELDOM = 0.1, 0.1  # seldom: this mass at least, at this share of tokens at most
GATED = 0.2  # share of the variance, beyond chance, from which a label is said to gate the sink

Label = Int[ndarray, "token"]
Factor = Literal["position", "token", "token beside position", "channel"]
Behavior = Literal["idle", "seldom", "position-gated", "content-gated", "neither"]


@dataclass(frozen=True)
class Tokens:
    """All tokens of all traces, one behind the other."""

    mass: Float[ndarray, "token layer head"]
    sequence: Int[ndarray, "token"]
    position: Int[ndarray, "token"]
    token: Int[ndarray, "token"]
    channel: ndarray
    part: ndarray


def doublings(position: Int[ndarray, "token"]) -> tuple[tuple[str, ...], Int[ndarray, "token"]]:
    """Positions by doubling: the names of those that occur, and which of them each one is.

    >>> doublings(np.array([0, 1, 5, 7]))
    (('0', '1', '4 to 7'), array([0, 1, 2, 2]))
    """
    bits = np.array([int(each).bit_length() for each in position])
    there, label = np.unique(bits, return_inverse=True)
    names = (str(n) if n < 2 else f"{2 ** (n - 1)} to {2**n - 1}" for n in map(int, there))
    return tuple(names), label


def causes(tokens: Tokens, seed: int) -> dict[Factor, Explained]:
    """What labels explain of the sink mass from SETTLED on."""
    settled = tokens.position >= SETTLED
    if len(left := np.unique(tokens.sequence[settled])) < 2:
        raise LabError(
            f"{len(left)} of the traces have tokens from position {SETTLED} on; what a head depends"
            " on needs two sequences or more"
        )
    sequence = np.searchsorted(left, tokens.sequence[settled])
    place = doublings(tokens.position[settled])[1]
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
        factor: explained(columns, label, sequence, beside=beside, seed=seed).shaped(mass.shape[1:])
        for factor, (label, beside) in labels.items()
    }


def behaviors(
    often_all: Float[ndarray, "layer head"],
    often_some: Float[ndarray, "layer head"],
    found: dict[Factor, Explained],
) -> tuple[tuple[Behavior, ...], ...]:
    """Each head by the thresholds, the first that holds."""

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
