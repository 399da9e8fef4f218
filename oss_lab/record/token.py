"""One generated token: plain data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        logprob: natural log of its probability under the model (temperature 1, nothing filtered).
        alternatives: the most likely (id, logprob) pairs at this position, best first.
        forced: set by a budget or by the caller, not sampled from the model.
    """

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()
    forced: bool = False
