"""A node of a branch tree: a span of tokens, and the interventions it was computed under."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from oss_lab.engine.cache import KVCache
from oss_lab.engine.sampling import Sampling
from oss_lab.hooks.interventions import Intervention
from oss_lab.record.token import Token


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A span of tokens that continues part of its parent's sequence.

    Attributes:
        number: its index in `Tree.nodes`.
        start: position of its first token; the parent's tokens before it come first.
        tokens: the given tokens (`forced`), then the generated ones.
        interventions: active from position start - 1.
        sampling: used to generate, including its seed; None if the model generated nothing.
        cache: keys and values of the sequence except its last token, which has not been read.
    """

    number: int
    parent: "Node | None"
    start: int
    tokens: tuple[Token, ...]
    interventions: tuple[Intervention, ...]
    sampling: Sampling | None
    cache: KVCache = field(repr=False)

    def __repr__(self) -> str:
        return f"<node {self.number}: positions {self.start}-{self.start + len(self.tokens) - 1}>"

    @property
    def sequence(self) -> tuple[Token, ...]:
        """All tokens from the start of the tree. The log-probability of the first is NaN."""
        before = () if self.parent is None else self.parent.sequence[: self.start]
        return (*before, *self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of `sequence`."""
        return tuple(token.id for token in self.sequence)

    @property
    def computed_spans(self) -> tuple[tuple[int, int, tuple[Intervention, ...]], ...]:
        """(begin, end, interventions): positions begin ... end - 1 were computed under these.

        Neighboring spans under the same interventions are merged.
        """
        end = self.start + len(self.tokens)
        if self.parent is None:
            return ((0, end, self.interventions),)
        begin = self.start - 1
        before = [
            (first, min(last, begin), made)
            for first, last, made in self.parent.computed_spans
            if first < begin
        ]
        if before and are_same(before[-1][2], self.interventions):
            begin = before.pop()[0]
        return (*before, (begin, end, self.interventions))


def are_same(some: Sequence[Intervention], others: Sequence[Intervention]) -> bool:
    """Whether these are the same objects: equal interventions may patch different values."""
    return list(map(id, some)) == list(map(id, others))
