"""Which earlier reasoning is left out of a rendering: four named policies.

The chain of thought of a finished turn is not shown to the model again. OpenAI's guide, its library
and Hugging Face's chat template disagree about when a turn is finished. Each of their rules has a
name and an explanation here. A policy only removes messages on the analysis channel.

A tool call on that channel and its output stay together, except under `library`. `hf` keeps both.
`spec` drops both if the tool is built in (its calls belong to the reasoning), and otherwise keeps
both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from oss_lab.errors import HarmonyError
from oss_lab.harmony.builtin_tools import BUILTIN_NAMES
from oss_lab.harmony.exchanges import Exchange, is_call, pair_calls
from oss_lab.harmony.messages import Message

PolicyName = Literal["library", "spec", "keep", "hf"]
Mode = Literal["completion", "conversation", "training", "message"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""What a rendering is for, as `mode` of `render`."""


@dataclass(frozen=True, slots=True)
class AnalysisPolicy:
    """A rule and its explanation. `find_dropped(messages, mode)` returns indices of `messages`."""

    name: PolicyName
    explanation: str
    find_dropped: Callable[[Sequence[Message], Mode], frozenset[int]]


def is_final(message: Message) -> bool:
    """Whether this message is the assistant's answer. A call on `final` is not."""
    return message.role == "assistant" and message.channel == "final" and not is_call(message)


def find_turn_start(messages: Sequence[Message], index: int) -> int:
    """Index at which the turn of message `index` starts.

    A turn is everything between two inputs to the model: its messages and its tools' outputs.
    """
    while index > 0 and messages[index - 1].role in ("assistant", "tool"):
        index -= 1
    return index


def _library(messages: Sequence[Message], mode: Mode) -> frozenset[int]:
    answers = [message for message in messages if message.role == "assistant"]
    if not answers or answers[-1].channel != "final":
        return frozenset()
    first = next(i for i, message in enumerate(messages) if message.channel == "final")
    return frozenset(i for i in range(first) if messages[i].channel == "analysis")


def _spec(messages: Sequence[Message], mode: Mode) -> frozenset[int]:
    # In training, the last turn is the target. It was still open while it was produced.
    end = find_turn_start(messages, len(messages)) if mode == "training" else len(messages)
    last = max((i for i in range(end) if is_final(messages[i])), default=0)
    kept = {
        index
        for exchange in pair_calls(messages)
        if not _is_inside_reasoning(messages, exchange, last)
        for index in (exchange.call, exchange.output)
    }
    return frozenset(i for i in range(last) if messages[i].channel == "analysis" and i not in kept)


def _is_inside_reasoning(messages: Sequence[Message], exchange: Exchange, end: int) -> bool:
    """Whether a built-in tool was called and answered on the analysis channel, before `end`."""
    found = [index for index in (exchange.call, exchange.output) if index is not None]
    message = messages[found[0]]
    name = message.recipient if message.role == "assistant" else message.author.name
    return (name or "").partition(".")[0] in BUILTIN_NAMES and all(
        index < end and messages[index].channel == "analysis" for index in found
    )


def _keep(messages: Sequence[Message], mode: Mode) -> frozenset[int]:
    return frozenset()


def _hf(messages: Sequence[Message], mode: Mode) -> frozenset[int]:
    return frozenset(
        i
        for i, message in enumerate(messages)
        if message.role == "assistant"
        and message.channel == "analysis"
        and not is_call(message)
        and not _hf_shows(messages, i, mode)
    )


def _hf_shows(messages: Sequence[Message], index: int, mode: Mode) -> bool:
    """Whether the template prints the reasoning at `index`. It does so in only two places."""
    for i in range(index + 1, len(messages)):
        message = messages[i]
        if message.role != "assistant":
            return False
        if is_call(message):  # before a call without a later final answer
            return not any(is_final(later) for later in messages[i + 1 :])
        if is_final(message):  # before the last answer, without a prompt after it
            return i == len(messages) - 1 and mode != "completion"
    return False


POLICIES: dict[PolicyName, AnalysisPolicy] = {
    policy.name: policy
    for policy in (
        AnalysisPolicy(
            "library",
            "Exactly as openai-harmony 0.0.8: if the last assistant message is final, everything on"
            " analysis before the FIRST final message (of any role) is dropped. Otherwise nothing"
            " is dropped. Later turns keep their reasoning, and a single-turn training text loses"
            " the reasoning of its target. A call on analysis is dropped even if its output stays.",
            _library,
        ),
        AnalysisPolicy(
            "spec",
            "OpenAI's guide: everything on analysis before the last final answer is dropped, but a"
            " call to a function stays together with its output. A turn that is still open keeps"
            " its reasoning. In training, the last turn is the target and counts as open, so the"
            " reasoning to be learned stays.",
            _spec,
        ),
        AnalysisPolicy("keep", "Nothing is dropped.", _keep),
        AnalysisPolicy(
            "hf",
            "Hugging Face's chat template (only its rule for dropping): reasoning is kept before a"
            " tool call with no final answer after it, and before the last answer if no generation"
            " prompt follows. All other reasoning is dropped. Calls and outputs stay.",
            _hf,
        ),
    )
}
"""Which earlier reasoning a rendering leaves out, by name: `policy` of `render`."""


def find_dropped_messages(
    messages: Sequence[Message], policy: PolicyName, mode: Mode
) -> frozenset[int]:
    """Indices of the messages that `policy` leaves out; a single message is never dropped."""
    if policy not in POLICIES:
        raise HarmonyError(f"unknown policy {policy!r}; use one of {', '.join(POLICIES)}")
    if mode == "message":
        return frozenset()
    return POLICIES[policy].find_dropped(messages, mode)
