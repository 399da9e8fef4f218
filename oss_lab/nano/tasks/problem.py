"""One problem for nano: question, conversation, chain of thought, tool calls and answer.

A task draws problems. A setting (see `settings.py`) adds a developer message to a problem and
changes the rest accordingly. A hash of the problem's key decides whether it is held out, so no list
is needed for training and evaluation to agree.
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
    """A call that the assistant should make, the thoughts before it, and the tool's output."""

    tool: str
    arguments: str
    output: str
    thoughts: Mapping[Effort, str]


@dataclass(frozen=True)
class Problem:
    """A question with everything that the assistant should write, for each effort.

    Attributes:
        name: the name of its task.
        answer: the text of `final`.
        thoughts: the `analysis` before `final` for each effort; "" for no analysis message.
        expression, value: the input for a calculator and its output; None if there is nothing to
            calculate.
        calls: tool calls, made one after the other before `thoughts` and `answer`.
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
        """All messages before the assistant's reply."""
        return Conversation((*self.opening(effort), *self._before()))

    def conversation(self, effort: Effort, date: str | None = None) -> Conversation:
        """The prompt, and the reply that the model should learn."""
        return Conversation((*self.opening(effort, date), *self.turns(effort)))

    def opening(self, effort: Effort, date: str | None = None) -> tuple[Message, ...]:
        """The system message and, if there is one, the developer message."""
        system = SystemContent(reasoning_effort=effort, conversation_start_date=date)
        opening = (Message.of("system", system),)
        return (*opening, Message.of("developer", self.developer)) if self.developer else opening

    def turns(self, effort: Effort) -> tuple[Message, ...]:
        """All messages from the first question to the last answer."""
        return (*self._before(), *self._reply(effort))

    def is_right(self, messages: Sequence[Message]) -> bool:
        """Whether the assistant's `final` is exactly the answer."""
        finals = [m.text for m in messages if m.role == "assistant" and m.channel == "final"]
        return "\n".join(finals).strip() == self.answer

    def tool_output(self, call: ToolCall) -> str | None:
        """The tool's output for one of the expected calls; None for any other call."""
        outputs = {(each.tool, each.arguments): each.output for each in self.calls}
        return outputs.get((call.name, call.arguments))

    def _before(self) -> tuple[Message, ...]:
        """Earlier turns, without their chain of thought, and the question."""
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


def format_call_arguments(**arguments: str) -> str:
    """The arguments of a call, as nano writes them."""
    return json.dumps(arguments, separators=(",", ":"))


def is_held_out(*key: object) -> bool:
    """Whether no training question of the task asks this; a step of a longer problem still may."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def belongs_to(split: Split, *key: object) -> bool:
    """Whether this split may ask this: evaluation asks held-out keys, training all others."""
    return is_held_out(*key) == (split == "held_out")
