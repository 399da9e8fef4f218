"""Generates the tokens of a run, and sends them to the views as they come."""

import threading
import time
from collections.abc import Callable

from oss_lab.agents.calls import CallRecord
from oss_lab.errors import LabError
from oss_lab.record.reply import ToolCall
from oss_widgets.sources.kernel import KernelSource, Work
from oss_widgets.sources.messages import describe_state, describe_tokens, write_note
from oss_widgets.sources.run import Run

PERIOD = 0.03  # seconds between two messages of tokens
AnswerCall = Callable[[Run, ToolCall], CallRecord | None]


class Generating:
    """Generates for a run, and sends to the views what it gained."""

    def __init__(
        self, source: KernelSource, run: Run, canceled: threading.Event, by: str = ""
    ) -> None:
        self.source, self.run, self.canceled, self.by = source, run, canceled, by
        self.sent, self.last = len(run.ids), 0.0

    def generate(self, limit: int | None, answer: AnswerCall) -> Work:
        """Generate up to `limit` tokens; answer the calls of tools and continue."""
        left = float("inf") if limit is None else limit
        run, source = self.run, self.source
        try:
            while left > 0 and not self.canceled.is_set():
                before = len(run.ids)
                is_open = run.step(self.canceled.is_set)
                left -= len(run.ids) - before
                self.send_due()
                yield
                if is_open:
                    continue
                yield from self._answer_calls(answer)
                if run.stop is not None:
                    break
        finally:  # also when it is canceled
            self.send_all()
            source.refresh()

    def _answer_calls(self, answer: AnswerCall) -> Work:
        """Answer the open calls as far as that is possible; a cancel is heard after each."""
        run, last = self.run, self.run.exchanges[-1]
        for place, call in last.open_calls.items():
            self.send_all()  # a tool may take long
            try:
                record = None if run.exhausted else answer(run, call)
            except LabError as error:
                run.problem = write_note(error)
                raise
            if record is not None:
                run.record_call(place, record)
                if run.stop is None:
                    self.sent = len(run.ids)  # the outputs were not generated
                yield
        self.send_all()

    def send_due(self) -> None:
        """Send the new tokens, unless the last ones were sent a moment ago."""
        now = time.monotonic()
        if now - self.last >= PERIOD:
            self.last = now
            self._send(self.sent)

    def send_all(self) -> None:
        """Send every token: labels of earlier ones may have changed."""
        self._send(0)

    def _send(self, start: int) -> None:
        run, fresh = self.run, max(0, len(self.run.ids) - self.sent)
        self.sent = len(run.ids)
        tokens = describe_tokens(run, self.source.encoding, start)
        event = {"event": "tokens", "run": run.id, "start": start, "tokens": tokens}
        self.source.announce({**event, "by": self.by, "fresh": fresh, **describe_state(run)})
