"""A request: one sequence to continue or to read, as plain data, and the check of its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

from oss_lab.config import ModelConfig
from oss_lab.engine.constraint import Constraint
from oss_lab.engine.sampling import GREEDY, LARGEST_SEED, Sampling
from oss_lab.errors import LabError
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.hooks.points import find_forward_points
from oss_lab.hooks.selection import Selection


@dataclass(frozen=True)
class Request:
    """What an engine should do for one sequence.

    Attributes:
        tokens: ids of the sequence so far.
        stop: ids that end generation; the result includes the one that was generated.
        max_tokens: how many tokens may be generated; 0 only reads the sequence.
        alternatives: how many of the most likely tokens to keep for each generated token.
        selection: what to record, if anything.
        effects: the interventions, each with counts of what it changed.
        draw: which of the seed's random streams to use; by default row n of a batch uses stream n.
        constraint: limits the ids that may be sampled; it is after the last token of `tokens`. Each
            row uses a copy.
    """

    tokens: tuple[int, ...]
    sampling: Sampling = GREEDY
    stop: frozenset[int] = frozenset()
    max_tokens: int = 0
    alternatives: int = 0
    selection: Selection | None = None
    effects: tuple[Effect, ...] = ()
    stream_number: int = 0
    constraint: Constraint | None = None

    @property
    def reads(self) -> frozenset[str]:
        """The points that it reads, to record them or for an intervention."""
        needed = {name for each in self.effects for name in each.intervention.READS}
        return frozenset(needed) | find_forward_points(
            self.selection.points if self.selection else ()
        )

    @property
    def writes(self) -> frozenset[str]:
        """The points that it changes."""
        return frozenset(each.intervention.writes for each in self.effects)

    def check(self, config: ModelConfig, name: str = "the prompt") -> None:
        """Raise LabError for a value that this model does not allow."""
        if self.max_tokens < 0:
            raise LabError(f"max_tokens is {self.max_tokens}; it must be 0 or more")
        if not 0 <= self.stream_number <= LARGEST_SEED:
            raise LabError(f"draw is {self.stream_number}; it must be 0 to 2^63-1")
        check_tokens(self.tokens, config, name=name, spare=min(1, self.max_tokens))
        if not 0 <= self.alternatives <= config.vocab_size:
            raise LabError(
                f"alternatives is {self.alternatives}; it must be from 0 to {config.vocab_size}"
            )
        if self.selection is not None:
            self.selection.check(config)


def check_tokens(
    tokens: Sequence[int], config: ModelConfig, *, name: str = "the sequence", spare: int = 0
) -> None:
    """Raise LabError for invalid ids, or if the tokens and `spare` more exceed the context."""
    if not len(tokens):
        raise LabError(f"{name} is empty; give it at least one token")
    if len(tokens) + spare > config.max_context_length:
        room = " and has no room for an answer" if spare else ""
        raise LabError(
            f"{name} has {len(tokens)} tokens; the context is {config.max_context_length}{room}"
        )
    for place, token in enumerate(tokens):
        try:
            id = index(token)
        except TypeError:
            raise LabError(
                f"{name} has {token!r} at position {place}; expected a token id"
            ) from None
        if not 0 <= id < config.vocab_size:
            raise LabError(
                f"{name} has id {token} at position {place}; the vocabulary has ids"
                f" 0 to {config.vocab_size - 1}"
            )
