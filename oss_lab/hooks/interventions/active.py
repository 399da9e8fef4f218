"""The active interventions: those of the `with` blocks around the running code.

They are stored in a context variable, so threads and tasks do not share them. A request copies the
active interventions when it is created; blocks that open or close later do not affect it. A block
removes only its own entries, so blocks may close in any order.
"""

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass

from oss_lab.errors import LabError
from oss_lab.hooks.interventions.changes import Effect, Effects


@dataclass(eq=False)
class Entry:
    """One intervention of a block, for the requests of one owner."""

    owner: object
    effect: Effect
    is_open: bool = True


ENTRIES: ContextVar[tuple[Entry, ...]] = ContextVar("interventions", default=())


def find_active_effects(owner: object) -> tuple[Effect, ...]:
    """The active interventions for requests of this owner, those of the outermost block first."""
    return tuple(e.effect for e in ENTRIES.get() if e.is_open and e.owner is owner)


class InterventionBlock(AbstractContextManager[Effects]):
    """Keeps interventions active while it is open; on closing, warns if one changed nothing."""

    def __init__(self, owner: object, effects: Effects) -> None:
        self._owner, self._effects = owner, effects
        self._entries: list[Entry] | None = None

    def __enter__(self) -> Effects:
        if self._entries is not None:
            raise LabError("this block was already entered; call `lab.intervene` again")
        self._entries = [Entry(self._owner, effect) for effect in self._effects.each]
        ENTRIES.set((*ENTRIES.get(), *self._entries))
        return self._effects

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._entries is None:
            raise LabError("this block was not entered; write `with lab.intervene(...)`")
        for entry in self._entries:
            entry.is_open = False  # takes effect even if the block is closed in another context
        ENTRIES.set(tuple(entry for entry in ENTRIES.get() if entry.is_open))
        if kind is None:
            self._warn()

    def _warn(self) -> None:  # the stacklevel of the warning counts this frame
        self._effects.warn_if_unchanged()
