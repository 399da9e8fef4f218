"""The tools that Python runs for the views: those that the person gave as functions or toolboxes.

A call is run by the agents' code (`oss_lab.agents.calls`), in the source's worker. Here is only
what views add: which given tools are run and which are only described, and how long a toolbox
stays open.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from oss_lab.agents.agent import Agent
from oss_lab.agents.calls import CallRecord, run_call
from oss_lab.agents.tool import Tool
from oss_lab.harmony import ToolDescription
from oss_lab.record.reply import ToolCall

ERRORS = {
    "ok": None,
    "malformed": "malformed arguments",
    "unknown tool": "unknown tool",
    "failed": "the tool failed",
}
"""What a view says about the status of a call."""


class RunTools:
    """The tools of one question, shared by its forks.

    Toolboxes open at the first call, and keep their state until `close`: until newer questions
    replace this one, the last view closes, or Python ends. A later call opens them afresh.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._stack = ExitStack()
        self._tools: Mapping[str, Tool] | None = None

    def run(self, call: ToolCall) -> CallRecord:
        """Run a call; what goes wrong in it is its output.

        Raises:
            LabError: a toolbox cannot open, such as Python where no sandbox works.
        """
        if self._tools is None:
            self._tools = self._stack.enter_context(self.agent.open_tools())
        return run_call(call, self._tools, self.agent.longest_output)

    def close(self) -> None:
        """End the state of the toolboxes, such as a Python process."""
        self._tools = None
        self._stack.close()


def list_names(agent: Agent | None) -> list[str]:
    """The names of an agent's tools; of a toolbox that of its namespace."""
    if agent is None:
        return []
    functions = [f"functions.{tool.name}" for tool in agent.tools]
    return [*functions, *(toolbox.namespace.name for toolbox in agent.toolboxes)]


def split_tools(given: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The tools that are only described, and those that can be run."""
    described = [each for each in given if isinstance(each, ToolDescription | Mapping)]
    return described, [each for each in given if not isinstance(each, ToolDescription | Mapping)]


def describe_call(name: str, arguments: str, record: CallRecord | None) -> dict[str, Any]:
    """A call as plain data; what is not known of it is None."""
    known = {"output": None, "seconds": None, "error": None, "notes": []}
    if record is not None:
        known = {
            "output": record.output,
            "seconds": record.seconds or None,  # an output that somebody wrote was not timed
            "error": ERRORS[record.status],
            "notes": list(record.notes),
        }
    return {"name": name, "arguments": arguments, **known}
