"""Run one call of the model: find its tool, check its arguments, and turn the outcome into text.

Errors are data. An unknown tool, malformed arguments, an exception of the tool and a result without
a text form all become the output of the call, which begins with `error:`. Nothing is run that is
not one of the given tools.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from oss_lab.agents.arguments import CallError
from oss_lab.agents.outputs import LONGEST, mend_text, shorten_output, to_text
from oss_lab.agents.tool import Tool
from oss_lab.errors import LabError, explain_error, explain_unknown
from oss_lab.harmony.exchanges import pair_calls
from oss_lab.harmony.messages import Message
from oss_lab.harmony.policy import is_final
from oss_lab.record.calls import tool_message
from oss_lab.record.reply import ToolCall

FUNCTIONS = "functions."
Status = Literal["ok", "unknown tool", "malformed", "failed", "interrupted", "not run"]


@dataclass(frozen=True)
class CallRecord:
    """One call and its outcome.

    Attributes:
        call: the name, arguments and channel as the model wrote them.
        status: `ok`; `unknown tool` or `malformed` (the function was not called); `failed` (the
            function raised, or its result has no text form); `interrupted` (stopped while it ran);
            `not run` (the run ended before).
        output: the text that the model gets; None if the call has no output.
        notes: how a malformed call was read.
        seconds: wall time of the call.
        cut: characters at the end of the output that the model did not get.
    """

    call: ToolCall
    status: Status
    output: str | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    cut: int = 0

    @property
    def message(self) -> Message | None:
        """The output as a Harmony message."""
        return None if self.output is None else tool_message(self.call, self.output)


def run_call(call: ToolCall, tools: Mapping[str, Tool], longest: int = LONGEST) -> CallRecord:
    """Run a call. What a tool raises becomes its output; only Ctrl-C and the like are raised.

    Args:
        tools: by full name, such as `functions.add`.
        longest: maximum characters of the output.
    """
    start = time.perf_counter()
    status, text, notes = _find_outcome(call, tools)
    output, cut = shorten_output(text, longest)
    return CallRecord(call, status, output, notes, time.perf_counter() - start, cut)


def _find_outcome(call: ToolCall, tools: Mapping[str, Tool]) -> tuple[Status, str, tuple[str, ...]]:
    name = find_name(call.name, tools)
    if name is None:
        return "unknown tool", f"error: {_explain_unknown(call.name, tools)}", ()
    notes = () if name == call.name else (f"{call.name!r} was read as {name!r}",)
    try:
        result, more = tools[name].call(call.arguments)
    except CallError as error:
        return "malformed", mend_text(f"error: {error}; {_describe_fields(tools[name])}"), notes
    except LabError as error:  # a sentence without the name of its class
        return "failed", mend_text(f"error: {error}"), notes
    except Exception as error:
        return "failed", mend_text(f"error: {explain_error(error)}"), notes
    try:
        return "ok", to_text(result), (*notes, *more)
    except CallError as error:
        return "failed", f"error: {error}", (*notes, *more)


def find_name(name: str, tools: Mapping[str, object]) -> str | None:
    """The tool that the model means; None if it is not clear.

    Models leave out `functions.`, write it twice, or write it before another namespace. A name
    without a namespace is read as the one tool that has it as its last part.

    >>> find_name("functions.functions.add", {"functions.add": 0})
    'functions.add'
    """
    if name in tools:
        return name
    bare = name
    while bare.startswith(FUNCTIONS):
        bare = bare.removeprefix(FUNCTIONS)
    for candidate in (f"{FUNCTIONS}{bare}", bare):
        if candidate in tools:
            return candidate
    found = [each for each in tools if each.rpartition(".")[2] == bare]
    return found[0] if len(found) == 1 else None


def _explain_unknown(name: str, tools: Mapping[str, Tool]) -> str:
    return explain_unknown("tool", mend_text(name)[:80], tools) if tools else "there are no tools"


def _describe_fields(tool: Tool) -> str:
    """The fields that a tool takes, as the end of a sentence."""
    schema = tool.description.parameters or {}
    properties = schema.get("properties", {})
    if not properties:
        return f"{tool.name} takes no fields"
    required = schema.get("required", ())
    fields = (
        f"{name} ({_name_type(each)}{'' if name in required else ', optional'})"
        for name, each in properties.items()
    )
    return f"{tool.name} takes a JSON object with {', '.join(fields)}"


def _name_type(schema: object) -> str:
    kind = schema.get("type", "any type") if isinstance(schema, Mapping) else "any type"
    return kind if isinstance(kind, str) else " or ".join(map(str, kind))


def find_open_calls(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The calls at the end of a conversation that still wait for an output, in order."""
    answers = (index for index, message in enumerate(messages) if is_final(message))
    last = max(answers, default=-1)
    waiting = (each.call for each in pair_calls(messages) if each.is_open)
    found = (messages[index] for index in waiting if index is not None and index > last)
    return tuple(ToolCall(each.recipient or "", each.text, each.channel) for each in found)
