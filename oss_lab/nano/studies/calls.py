"""When is a tool called, and is the call valid? First replies of four kinds of situation.

A call is wanted where a calculator is declared and nano learned to calculate what is asked. It is
valid if it goes to the calculator on commentary and its arguments are the JSON object of the
declared schema; exact if the expression is the question's.
"""

import json
from dataclasses import dataclass

from oss_lab.analysis.statistics.shares import Share
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import replied
from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks.settings import CALCULATOR
from oss_lab.progress import progress
from oss_lab.record.reply import ToolCall

SITUATIONS = {
    "calculator, arithmetic": True,
    "calculator, nothing it learnt to calculate": False,
    "other tool, arithmetic": False,
    "too long, no calculator": False,
}
"""Rows of the suite, and whether a call is wanted there."""


@dataclass(frozen=True)
class Calls:
    """One situation at one effort.

    Attributes:
        as_wanted: replies with a call where one is wanted, or with none where none is.
        valid, exact: of the replies with a call.
    """

    situation: str
    effort: Effort
    seed: int
    as_wanted: Share
    valid: Share
    exact: Share


def measure(lab: Lab, n: int, seed: int) -> list[Calls]:
    """At most n problems of each situation at each effort."""
    found: list[Calls] = []
    todo: list[tuple[str, Effort]] = [(name, effort) for name in SITUATIONS for effort in EFFORTS]
    for name, effort in progress(todo, "calls", leave=True):
        problems = SUITE[name].problems(name, n, seed)
        first = replied(lab, problems, effort)  # before any tool has answered
        called = [
            (p, reply.tool_calls[0])
            for p, reply in zip(problems, first, strict=True)
            if reply.tool_calls
        ]
        as_wanted = [bool(reply.tool_calls) == SITUATIONS[name] for reply in first]
        valid = [is_valid(call) for _, call in called]
        exact = [problem.tool_output(call) is not None for problem, call in called]
        found.append(
            Calls(name, effort, seed, Share.of(as_wanted), Share.of(valid), Share.of(exact))
        )
    return found


def is_valid(call: ToolCall) -> bool:
    """Whether the call follows the declaration."""
    try:
        arguments = json.loads(call.arguments)
    except json.JSONDecodeError:
        return False
    return (
        (call.name, call.channel) == (CALCULATOR, "commentary")
        and isinstance(arguments, dict)
        and arguments.keys() == {"expression"}
        and isinstance(arguments["expression"], str)
    )
