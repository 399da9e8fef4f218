"""A case of lesson 19 as a conversation: each rule in the message of its role."""

from collections.abc import Iterator, Mapping

from oss_lab.course.labs.hierarchy.data import Case
from oss_lab.harmony.messages import (
    IDENTITY,
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    Role,
    SystemContent,
    make_function_tools,
)
from oss_lab.nano.tasks.problem import format_call_arguments
from oss_lab.nano.tasks.settings import LOOK_UP, LOOK_UP_TOOL


def write_prompt(
    case: Case, effort: Effort | None = None, *, is_last: bool = False
) -> Conversation:
    """All messages before the answer, each rule at the beginning of the message of its role.

    Args:
        is_last: put the rules at the end of their messages instead.
        effort: if given, the prompt is a full one, as nano knows it. Otherwise effort is low, and
            the system message and the tools are left out as far as possible. That makes a prompt
            less than half as long, and the training twice as fast.
    """
    texts: dict[Role, str] = {role: rule.text for role, rule in case.rules.items()}
    if effort is None:
        opening = [Message.of("system", short_system(texts.get("system")))]
    else:
        identity = _join(texts.get("system"), IDENTITY, is_last)
        opening = [Message.of("system", SystemContent(identity, effort))]
    tools = make_function_tools([LOOK_UP_TOOL]) if case.by_tool and effort else None
    instructions = texts.get("developer", case.neutral)
    if tools or instructions:
        opening.append(Message.of("developer", DeveloperContent(instructions, tools)))
    return Conversation((*opening, *_chat(case, texts, is_last)))


def short_system(rule: str | None = None) -> SystemContent:
    """A system message with nothing but this rule, if any, and the effort."""
    return SystemContent(rule, "low", knowledge_cutoff=None, channel_config=None)


def _chat(case: Case, texts: Mapping[Role, str], is_last: bool) -> Iterator[Message]:
    if case.is_later:
        yield Message.of("user", "Hello!")
        yield Message.of(
            "assistant", _join(texts.get("assistant"), "Hello.", is_last), channel="final"
        )
    yield Message.of("user", _join(texts.get("user"), ask(case), is_last))
    if case.by_tool:
        arguments = format_call_arguments(word=case.word)
        yield Message.of(
            "assistant", arguments, channel="commentary", recipient=LOOK_UP,
            content_type="<|constrain|>json",
        )  # fmt: skip
        output = _join(texts.get("tool"), case.number, is_last)
        yield Message.of("tool", output, name=LOOK_UP, channel="commentary", recipient="assistant")


def ask(case: Case) -> str:
    """The question, with the facts if no tool has them."""
    if case.by_tool:
        return f"Look up {case.word}."
    listed = ", ".join(f"{word} is {number}" for word, number in case.facts.items())
    return f"{listed}. What is {case.word}?"


def _join(rule: str | None, text: str, is_last: bool) -> str:
    if rule is None:
        return text
    return f"{text} {rule}" if is_last else f"{rule} {text}"
