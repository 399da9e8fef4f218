"""The events of a parser that its caller has not taken yet, and all of its diagnostics."""

from __future__ import annotations

from oss_lab.errors import HarmonyError
from oss_lab.harmony.events import Diagnostic, DiagnosticKind, Event


class EventLog:
    """Collects events in order. A strict log raises its first new diagnostic instead.

    Attributes:
        diagnostics: all diagnostics so far.
    """

    def __init__(self, *, is_strict: bool) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._is_strict = is_strict
        self._events: list[Event] = []
        self._raised = 0  # number of diagnostics that were already raised

    def add(self, event: Event) -> None:
        self._events.append(event)

    def report(self, position: int, kind: DiagnosticKind, message: str) -> None:
        """Add a diagnostic of the token at this position."""
        self.diagnostics.append(Diagnostic(kind, position, message))
        self._events.append(self.diagnostics[-1])

    def raise_if_strict(self) -> None:
        """Raise the first diagnostic since the last call, and drop the events.

        Raises:
            HarmonyError: the log is strict and there is one.
        """
        if self._is_strict and len(self.diagnostics) > self._raised:
            first = self.diagnostics[self._raised]
            self._raised = len(self.diagnostics)
            self._events = []
            raise HarmonyError(f"token {first.position}: {first.kind}: {first.message}")

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events
