"""When does nano call a tool, and is the call valid? First replies in four kinds of situation.

A call is wanted if a calculator is declared and the question is one that nano learned to calculate.
A call is valid if it goes to the calculator on the commentary channel and its arguments are a JSON
object of the declared schema. It is exact if its expression is the question's.
"""

import json
from dataclasses import dataclass

from oss_lab.analysis.statistics.shares import Share
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import reply_to_problems
from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks.settings import CALCULATOR
from oss_lab.progress import track_progress
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
        as_wanted: replies that call if a call is wanted, and do not call if none is.
        valid, exact: of the replies with a call.
    """

    situation: str
    effort: Effort
    seed: int
    as_wanted: Share
    valid: Share
    exact: Share


def study_calls(lab: Lab, n: int, seed: int) -> list[Calls]:
    """Ask at most n problems of each situation at each effort."""
    found: list[Calls] = []
    todo: list[tuple[str, Effort]] = [(name, effort) for name in SITUATIONS for effort in EFFORTS]
    for name, effort in track_progress(todo, "calls", leave=True):
        problems = SUITE[name].draw_problems(name, n, seed)
        first = reply_to_problems(lab, problems, effort)  # before any tool has answered
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
    """Whether the call matches the declared schema."""
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
