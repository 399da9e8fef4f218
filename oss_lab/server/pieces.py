"""Harmony events as the items of a reply, whichever API shows them: reasoning, text and calls.

The `analysis` channel is reasoning, a message to a tool is a call, and everything else is text:
`commentary` has the phase `commentary`, `final` the phase `final_answer`. Text that may be the
beginning of a stop string is held back until it is decided. Tokens that are delivered together
become one piece of text, since every piece is an event, which takes time here and in the client.
Stop strings are looked for token by token, so what a client gets does not depend on the delivery.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from oss_lab.harmony import Delta, End, Event, Start
from oss_lab.harmony.exchanges import is_tool
from oss_lab.record.reply import Reply

Kind = Literal["reasoning", "text", "call"]
Phase = Literal["commentary", "final_answer"]
Range = tuple[int, int]


@dataclass(frozen=True)
class Opened:
    """An item begins. `name` is the function of a call; only text has a phase."""

    kind: Kind
    phase: Phase | None = None
    name: str = ""


@dataclass(frozen=True)
class Added:
    """More text of the open item, and the tokens [first, end) that it comes from."""

    text: str
    tokens: Range


@dataclass(frozen=True)
class Closed:
    """The item ends; `is_complete` is False if the model was cut short in it."""

    text: str
    is_complete: bool


Piece = Opened | Added | Closed


class Pieces:
    """Reads the events of one reply in order.

    Attributes:
        reasoning_tokens: tokens of the finished messages of reasoning.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = tuple(stop)
        self.reasoning_tokens = 0
        self._open: Opened | None = None
        self._text = ""  # of the open item, as far as it was passed on
        self._held = ""  # may be the beginning of a stop string
        self._held_tokens = (0, 0)  # without those that were passed on
        self._is_stopped = False  # whether a stop string has been found in the open item

    def read(self, events: Sequence[Event], *, is_complete: bool = True) -> list[Piece]:
        """The pieces of these events; `is_complete` is that of an item that ends in them."""
        pieces: list[Piece] = []
        for event in events:
            if isinstance(event, Start):
                pieces.append(self._begin(event))
            elif isinstance(event, Delta):
                pieces += self._add(event.text, event.tokens)
            elif isinstance(event, End):
                pieces += self._end(event, is_complete)
        return list(join_texts(pieces))

    def finish(self, events: Sequence[Event], reply: Reply) -> list[Piece]:
        """The pieces of the last events, once the reply is finished."""
        return self.read(events, is_complete=reply.stop == "text" or not reply.unfinished)

    def _begin(self, event: Start) -> Opened:
        self._text = self._held = ""
        self._is_stopped = False
        if is_tool(event.recipient):
            name = (event.recipient or "").removeprefix("functions.")
            self._open = Opened("call", name=name)
        elif event.channel == "analysis":
            self._open = Opened("reasoning")
        else:
            phase = "commentary" if event.channel == "commentary" else "final_answer"
            self._open = Opened("text", phase)
        return self._open

    def _add(self, text: str, tokens: Range) -> list[Piece]:
        first = self._held_tokens[0] if self._held else tokens[0]
        text, kept = self._held + text, 0
        if self._is_stopped:
            text = ""
        elif self.stop and self._open is not None and self._open.phase == "final_answer":
            text, kept = self._cut(text)
        self._held, text = text[len(text) - kept :], text[: len(text) - kept]
        # A token is passed on once, also if the end of its text is held.
        self._held_tokens = (tokens[1] if text else first, tokens[1])
        return self._pass_on(text, (first, tokens[1]))

    def _cut(self, text: str) -> tuple[str, int]:
        """The text before a stop string, and how much of its end may be the beginning of one."""
        found = [place for each in self.stop if (place := text.find(each)) >= 0]
        if found:
            self._is_stopped = True
            return text[: min(found)], 0
        for count in range(min(max(map(len, self.stop)), len(text)), 0, -1):
            if any(each.startswith(text[len(text) - count :]) for each in self.stop):
                return text, count
        return text, 0

    def _pass_on(self, text: str, tokens: Range) -> list[Piece]:
        self._text += text
        return [Added(text, tokens)] if text else []

    def _end(self, event: End, is_complete: bool) -> list[Piece]:
        first, end = event.tokens
        pieces = self._pass_on(self._held, self._held_tokens)
        if self._open is not None and self._open.kind == "reasoning":
            self.reasoning_tokens += end - first
        self._open, self._held = None, ""
        return [*pieces, Closed(self._text, is_complete)]


def join_texts(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces, with those of text that follow each other as one: they are of one item."""
    for kind, group in groupby(pieces, type):
        if kind is not Added:
            yield from group
            continue
        added = [each for each in group if isinstance(each, Added)]
        text = "".join(each.text for each in added)
        yield Added(text, (added[0].tokens[0], added[-1].tokens[1]))
