"""The tools that `oss-lab chat --tools` runs, and their state.

calculator   +, -, * and / on whole numbers; nano learned to call it
browser      search, open and find in the lessons of this project
python       Python code, in a sandbox without network
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from oss_lab.agents import Agent, Browser, Noted, Python, Tool
from oss_lab.agents.calls import find_name
from oss_lab.errors import LabError, explain_unknown
from oss_lab.harmony.demands import find_declared_tools
from oss_lab.harmony.messages import Conversation, ToolDescription
from oss_lab.nano.calculator import calculate
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL
from oss_lab.record.reply import ToolCall

NAMES = ("calculator", "browser", "python")
FROM_EXAMPLE = "this output comes with the example"
Outputs = Mapping[str, str]
"""The outputs of an example's tools, by the arguments of the call."""


def read_names(text: str) -> tuple[str, ...]:
    """The names in the value of --tools.

    Raises:
        LabError: one is not a tool, or occurs twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in NAMES:
            raise LabError(f"--tools: {explain_unknown('tool', name, NAMES)}")
        if names.count(name) > 1:
            raise LabError(f"--tools names {name} twice; once is enough")
    return names


@dataclass(frozen=True)
class ToolChoice:
    """The tools of one conversation.

    Attributes:
        tools: by full name; those of an example know only the outputs that it brings.
        own: the names of the tools that answer any call.
    """

    tools: Mapping[str, Tool]
    own: frozenset[str]
    outputs: Outputs

    def has(self, name: str) -> bool:
        """Whether one of the tools has this name, as a model writes it."""
        return find_name(name, self.tools) is not None

    def can_run(self, call: ToolCall) -> bool:
        """Whether a tool answers this call. If not, the user types its output."""
        name = find_name(call.name, self.tools)
        return name in self.own or (name is not None and call.arguments in self.outputs)


class OpenTools:
    """The tools that were given with --tools. Pages and variables last until `close`.

    Args:
        names: some of `NAMES`.
        note: called with a sentence for the user.
        is_run: whether they are run, or only declared to the model.
    """

    def __init__(
        self, names: Sequence[str] = (), note: Callable[[str], None] = print, *, is_run: bool = True
    ) -> None:
        self.given = [self._build(name) for name in names]
        self.is_run = is_run and bool(names)
        self._note, self._stack, self._sandbox = note, ExitStack(), ""
        self._open: Mapping[str, Tool] | None = None

    def open(self, model: Any) -> Mapping[str, Tool]:
        """The tools by full name, opened again after `close`; none if they are not run.

        Raises:
            LabError: no sandbox works here.
        """
        if self._open is None:
            agent = Agent(model, self.given if self.is_run else ())
            self._open = self._stack.enter_context(agent.open_tools())
        return self._open

    def close(self) -> None:
        """End the Python process and forget the pages."""
        self._open = None
        self._stack.close()

    def choose(self, model: Any, conversation: Conversation, outputs: Outputs) -> ToolChoice:
        """The tools that this conversation declares; an example's outputs come first."""
        declared = find_declared_tools(conversation)
        own = {
            name: tool
            for name, tool in self.open(model).items()
            if declared is None or name in declared
        }
        known = {name: add_outputs(name, own.get(name), outputs) for name in declared or ()}
        return ToolChoice({**own, **(known if outputs else {})}, frozenset(own), outputs)

    def _build(self, name: str) -> Any:
        if name == "browser":
            return Browser()
        if name == "python":
            return Python(self._start_python)
        return Tool.of(calculate, CALCULATOR_TOOL)

    def _start_python(self) -> Any:
        from oss_lab.agents.sandbox import PythonSandbox

        python = PythonSandbox()
        if python.sandbox != self._sandbox:
            self._note(f"python runs code in the sandbox {python.sandbox}, without network")
            self._sandbox = python.sandbox
        return python


def add_outputs(name: str, tool: Tool | None, outputs: Outputs) -> Tool:
    """A tool that gives the outputs of an example, and otherwise does what `tool` does."""

    def answer(text: str) -> object:
        if tool is None or text in outputs:
            return Noted(outputs[text], (FROM_EXAMPLE,))
        value, notes = tool.call(text)
        return Noted(value, notes)

    description = ToolDescription(name) if tool is None else tool.description
    return Tool(description, answer, reads_text=True)
