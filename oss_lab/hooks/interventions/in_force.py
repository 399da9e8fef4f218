"""Which interventions are in force: those of the `with` blocks around the code that asks.

They are kept in a context variable, so threads and tasks do not see each other's. A request copies
them when it is created; blocks that open or close later do not affect it. A block removes its own
entries, in whatever order blocks are closed.
"""

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass

from oss_lab.errors import LabError
from oss_lab.hooks.interventions.changes import Effect, Effects


@dataclass(eq=False)
class Entry:
    """One intervention of an open block, for the requests of one owner."""

    owner: object
    effect: Effect
    is_open: bool = True


ENTRIES: ContextVar[tuple[Entry, ...]] = ContextVar("interventions", default=())


def in_force(owner: object) -> tuple[Effect, ...]:
    """The interventions for requests of this owner, the outermost block's first."""
    return tuple(e.effect for e in ENTRIES.get() if e.is_open and e.owner is owner)


class Block(AbstractContextManager[Effects]):
    """Keeps interventions in force until it is closed; then warns of those that changed nothing."""

    def __init__(self, owner: object, effects: Effects) -> None:
        self._owner, self._effects = owner, effects
        self._entries: list[Entry] | None = None

    def __enter__(self) -> Effects:
        if self._entries is not None:
            raise LabError("this block was entered already: call `lab.intervene` again")
        self._entries = [Entry(self._owner, effect) for effect in self._effects.each]
        ENTRIES.set((*ENTRIES.get(), *self._entries))
        return self._effects

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._entries is None:
            raise LabError("this block was not entered: write `with lab.intervene(...)`")
        for entry in self._entries:
            entry.is_open = False  # also where the block is closed in another context
        ENTRIES.set(tuple(entry for entry in ENTRIES.get() if entry.is_open))
        if kind is None:
            self._warn()

    def _warn(self) -> None:  # the stacklevel of the warning counts this frame
        self._effects.warn_of_none()
