"""Read a Request of the views: plain data, which `js/source/source.js` describes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from oss_lab.agents.agent import Agent
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Message, ToolDescription
from oss_lab.hooks.arguments import describe
from oss_widgets.sources.kernel import read_object

SAMPLING = {"temperature": "temperature", "topK": "top_k", "topP": "top_p", "minP": "min_p",
            "seed": "seed"}  # fmt: skip


def read_question(request: Mapping[str, Any]) -> str:
    """The question.

    Raises:
        LabError: there is none.
    """
    question = request.get("question")
    if not isinstance(question, str) or not question.strip():
        raise LabError("there is no question; write one and press Enter")
    return question


def read_sampling(request: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields of the sampling, with their names in Python."""
    given = read_object("sampling", request.get("sampling"))
    if unknown := given.keys() - SAMPLING.keys():
        raise LabError(f"sampling has no {min(map(str, unknown))}; it has {', '.join(SAMPLING)}")
    return {SAMPLING[name]: value for name, value in given.items()}


def read_limit(request: Mapping[str, Any]) -> int | None:
    """The most tokens of a reply, or None."""
    limit = request.get("maxTokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise LabError(f"maxTokens is {limit!r}; it must be an integer, 1 or more")
    return limit


def add_history(asked: Conversation, request: Mapping[str, Any]) -> Conversation:
    """The conversation with the earlier questions and answers before its last message."""
    *opening, last = asked.messages
    pairs = read_list("history", request.get("history"))
    for each in pairs:
        if not is_list(each) or len(each) != 2 or not all(isinstance(x, str) for x in each):
            raise LabError(f"history must be pairs of a question and an answer, got {each!r}")
    outputs = read_object("toolOutputs", request.get("toolOutputs"))
    if not all(isinstance(each, str) for each in outputs.values()):
        raise LabError(f"toolOutputs must be texts, by the text of the call, got {outputs!r}")
    earlier = [
        message
        for before, answer in pairs
        for message in (
            Message.of("user", before),
            Message.of("assistant", answer, channel="final"),
        )
    ]
    return Conversation((*opening, *earlier, last))


def is_list(given: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)


def read_list(name: str, given: Any) -> Sequence[Any]:
    """A list of a message; None is an empty one.

    Raises:
        LabError: it is something else.
    """
    if given is not None and not is_list(given):
        raise LabError(f"{name} must be a list, got {describe(given)}")
    return given or ()


def read_described(request: Mapping[str, Any], agent: Agent | None) -> list[ToolDescription]:
    """The tools that a request describes, without those that the agent runs."""
    run_here = () if agent is None else {tool.name for tool in agent.tools}
    described = [read_tool(each) for each in read_list("tools", request.get("tools"))]
    return [each for each in described if each.name not in run_here]


def read_tool(given: Any) -> ToolDescription:
    """A tool from its plain data."""
    if isinstance(given, ToolDescription):
        return given
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise LabError(f"a tool must be an object with a name, got {describe(given)}")
    return ToolDescription(given["name"], given.get("description") or "", given.get("parameters"))
