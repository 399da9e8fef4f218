"""One problem for nano: what is asked, in which conversation, what is thought, called and answered.

A task draws problems; a setting (see `settings.py`) puts a developer message before one and changes
what follows from it. What is held out is decided by a hash of what makes a problem new, so that
training and evaluation agree on it without a list.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

from oss_lab.harmony.messages import (
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    SystemContent,
)
from oss_lab.record.reply import ToolCall

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 10  # one key in ten


@dataclass(frozen=True)
class Call:
    """A call that the assistant should make, what it thinks before it, and the tool's output."""

    tool: str
    arguments: str
    output: str
    thoughts: Mapping[Effort, str]


@dataclass(frozen=True)
class Problem:
    """A question with everything that the assistant should write, for each effort.

    Attributes:
        name: the task that it belongs to.
        answer: the text of `final`.
        thoughts: the `analysis` before `final` for each effort; "" is none at all.
        expression, value: what a calculator would be asked, and its answer; None: nothing.
        calls: made one after the other before that.
        history: problems answered earlier in the same conversation.
    """

    name: str
    question: str
    answer: str
    thoughts: Mapping[Effort, str]
    expression: str | None = None
    value: str | None = None
    calls: tuple[Call, ...] = ()
    developer: DeveloperContent | None = None
    history: tuple["Problem", ...] = ()

    def prompt(self, effort: Effort) -> Conversation:
        """All that comes before the assistant's reply."""
        return Conversation((*self.opening(effort), *self._before()))

    def conversation(self, effort: Effort, date: str | None = None) -> Conversation:
        """The prompt and the reply that is learned."""
        return Conversation((*self.opening(effort, date), *self.turns(effort)))

    def opening(self, effort: Effort, date: str | None = None) -> tuple[Message, ...]:
        """The system message and, where there is one, the developer message."""
        system = SystemContent(reasoning_effort=effort, conversation_start_date=date)
        opening = (Message.of("system", system),)
        return (*opening, Message.of("developer", self.developer)) if self.developer else opening

    def turns(self, effort: Effort) -> tuple[Message, ...]:
        """Everything from the first question to the last answer."""
        return (*self._before(), *self._reply(effort))

    def is_right(self, messages: Sequence[Message]) -> bool:
        """Whether the assistant's `final` is the answer and nothing else."""
        finals = [m.text for m in messages if m.role == "assistant" and m.channel == "final"]
        return "\n".join(finals).strip() == self.answer

    def tool_output(self, call: ToolCall) -> str | None:
        """What the tool says to one of the right calls; None to any other."""
        outputs = {(each.tool, each.arguments): each.output for each in self.calls}
        return outputs.get((call.name, call.arguments))

    def _before(self) -> tuple[Message, ...]:
        """Earlier turns, whose thoughts are not shown again, and the question."""
        earlier = (m for each in self.history for m in (*each._before(), *each._reply("low")))
        return (*earlier, Message.of("user", self.question))

    def _reply(self, effort: Effort) -> Iterator[Message]:
        for call in self.calls:
            yield from _analysis(call.thoughts[effort])
            yield Message.of(
                "assistant",
                call.arguments,
                channel="commentary",
                recipient=call.tool,
                content_type="<|constrain|>json",
            )
            yield Message.of(
                "tool", call.output, name=call.tool, channel="commentary", recipient="assistant"
            )
        yield from _analysis(self.thoughts[effort])
        yield Message.of("assistant", self.answer, channel="final")


def _analysis(thought: str) -> tuple[Message, ...]:
    return (Message.of("assistant", thought, channel="analysis"),) if thought else ()


class Task(Protocol):
    """Draws problems of one kind."""

    @property
    def name(self) -> str: ...

    def draw(self, rng: Random, split: Split) -> Problem: ...


def call_arguments(**arguments: str) -> str:
    """The arguments of a call, as nano writes them."""
    return json.dumps(arguments, separators=(",", ":"))


def is_held_out(*key: object) -> bool:
    """Whether no training question of its task asks this; steps of longer ones may hold it."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def belongs_to(split: Split, *key: object) -> bool:
    """Whether this split may ask this: evaluation what is held out, training the rest."""
    return is_held_out(*key) == (split == "held_out")
