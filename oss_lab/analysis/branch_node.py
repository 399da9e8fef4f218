"""A stretch of tokens in a tree of branches, and under which interventions it was computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from oss_lab.engine.cache import KVCache
from oss_lab.engine.sampling import Sampling
from oss_lab.hooks.interventions import Intervention
from oss_lab.record.token import Token


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A stretch of tokens behind a part of its parent's sequence.

    Attributes:
        number: its place in `Tree.nodes`.
        start: position of its first token; the parent's tokens before it come first.
        tokens: what was given (`forced`), then what the model wrote.
        interventions: in force from position start - 1 on.
        sampling: by which the model wrote, its seed included; None where it wrote nothing.
        cache: keys and values of the whole sequence but its last token, which nothing has followed.
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
        """All tokens from the beginning on. The log-probability of the first is NaN."""
        before = () if self.parent is None else self.parent.sequence[: self.start]
        return (*before, *self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of `sequence`."""
        return tuple(token.id for token in self.sequence)

    @property
    def computed(self) -> tuple[tuple[int, int, tuple[Intervention, ...]], ...]:
        """(begin, end, interventions): under which the positions begin ... end - 1 were computed.

        Neighboring stretches under the same interventions are one.
        """
        end = self.start + len(self.tokens)
        if self.parent is None:
            return ((0, end, self.interventions),)
        begin = self.start - 1
        before = [
            (first, min(last, begin), made)
            for first, last, made in self.parent.computed
            if first < begin
        ]
        if before and same(before[-1][2], self.interventions):
            begin = before.pop()[0]
        return (*before, (begin, end, self.interventions))


def same(some: Sequence[Intervention], others: Sequence[Intervention]) -> bool:
    """Whether these are the very same interventions: equal ones may put in different values."""
    return list(map(id, some)) == list(map(id, others))
