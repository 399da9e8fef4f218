"""`Agent`: a model, tools and a budget. It answers a question with as many calls as that takes.

    agent = Agent(lab, [add], budget=Budget(calls=5))
    run = agent.run("What is 4815 * 884?")
    run.final, run.calls, run.stopped

A model is anything with `stream`, such as a `Lab`, a `ScriptedModel`, or what `connect` returns for
another engine. An agent has no state, so several threads can use one. Each run opens the toolboxes
afresh; in a `session`, they stay open over several runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from oss_lab.agents.budget import Budget
from oss_lab.agents.outputs import LONGEST
from oss_lab.agents.run import Run
from oss_lab.agents.stream import RunStream
from oss_lab.agents.tool import Tool, Toolbox
from oss_lab.errors import LabError, explain_unknown
from oss_lab.grammar.response_format import find_response_format
from oss_lab.harmony.demands import find_declared_tools
from oss_lab.harmony.messages import Conversation, SystemContent, ToolNamespace
from oss_lab.harmony.prompt import Question, add_response_format, build_prompt, shorten_repr
from oss_lab.harmony.tool_forms import describe_tools
from oss_lab.lab.options import MESSAGE_KEYWORDS, Options
from oss_lab.record.builder import Stream

REFUSED = ("tools", "instructions", "continue_from", "ignore_stops")


class Model(Protocol):
    """What an agent needs of a model."""

    def stream(self, question: Question, **options: Any) -> Stream: ...


class Agent:
    """A model with tools.

    Args:
        tools: typed Python functions, `Tool`s and toolboxes such as `Browser`.
        budget: the limits of each run.
        instructions: for the developer message.
        drop_reasoning: do not show the model its reasoning again between calls. This is a mistake
            that many clients make; it is an option to measure what it costs.
        longest_output: maximum characters of a tool's output.
        options: keywords of `lab.stream`, such as effort, temperature, seed and max_tokens.

    Raises:
        LabError: a tool cannot be described, or two have the same name.
    """

    def __init__(
        self,
        model: Model,
        tools: Sequence[Any] = (),
        *,
        budget: Budget | None = None,
        instructions: str | None = None,
        drop_reasoning: bool = False,
        longest_output: int = LONGEST,
        **options: Any,
    ) -> None:
        names = [name for name in Options.__annotations__ if name not in REFUSED]
        if unknown := options.keys() - {*names}:
            raise LabError(explain_unknown("keyword", min(unknown), names))
        if not hasattr(model, "stream"):
            raise LabError(
                f"expected a model such as `oss_lab.load()` returns, got {shorten_repr(model)}"
            )
        if not isinstance(tools, Sequence) or isinstance(tools, str):
            raise LabError(f"expected a list of tools, got {shorten_repr(tools)}")
        self.model = model
        self.budget = Budget() if budget is None else budget
        self.instructions = instructions
        self.drop_reasoning, self.longest_output = drop_reasoning, longest_output
        self.options = options
        self.toolboxes = tuple(each for each in tools if is_toolbox(each))
        self.tools = tuple(
            each if isinstance(each, Tool) else Tool.of(each)
            for each in tools
            if not is_toolbox(each)
        )
        describe_tools([tool.description for tool in self.tools])  # refuses a repeated name
        names = [toolbox.namespace.name for toolbox in self.toolboxes]
        if twice := [name for name in names if names.count(name) > 1 or name == "functions"]:
            raise LabError(f"there is more than one toolbox {twice[0]!r}; give one")

    def conversation(self, question: Question) -> Conversation:
        """The messages before the first reply, with the tools declared.

        A Conversation is used as it is, with the agent's effort and response_format if it has any.

        Raises:
            LabError: a Conversation does not declare one of the tools.
        """
        prompt = self._declare_tools(question)
        section = find_response_format(self.options.get("response_format"))
        return prompt if section is None else add_response_format(prompt, section)

    def _declare_tools(self, question: Question) -> Conversation:
        effort: Any = self.options.get("effort")
        default: Any = getattr(self.model, "effort", "medium")
        if isinstance(question, Conversation):
            declared = find_declared_tools(question)
            missing = [name for name in self._list_names() if name not in (declared or ())]
            if declared is not None and missing:
                raise LabError(
                    f"the conversation does not declare the tool {missing[0]!r}; begin it with"
                    " agent.conversation(question)"
                )
            return build_prompt(question, effort=effort, default_effort=default)
        prompt = build_prompt(
            question,
            effort=effort,
            default_effort=default,
            instructions=self.instructions,
            tools=[tool.description for tool in self.tools],
            date=self.options.get("date"),
        )
        spaces = {each.namespace.name: each.namespace for each in self.toolboxes}
        return declare_namespaces(prompt, spaces) if spaces else prompt

    def run(self, question: Question, *, budget: Budget | None = None) -> Run:
        """Answer a question with tools.

        Calls that wait for an output at the end of a Conversation are run first, so a run that its
        budget ended continues with `agent.run(run.conversation)`.

        Raises:
            LabError: the question cannot be used, or the model cannot answer it at all.
            RunInterrupted: Ctrl-C; it has the run so far.
        """
        return self.stream(question, budget=budget).read()

    def stream(self, question: Question, *, budget: Budget | None = None) -> RunStream:
        """The same, event by event; `stream.run` is what happened so far."""
        return RunStream(self, self.conversation(question), budget or self.budget, self.open_tools)

    @contextmanager
    def session(self) -> "Iterator[Session]":
        """Runs that share the state of the toolboxes, such as open pages."""
        with self.open_tools() as tools:
            yield Session(self, tools)

    @contextmanager
    def open_tools(self) -> Iterator[Mapping[str, Tool]]:
        """All tools by full name, with fresh state."""
        with ExitStack() as stack:
            found = {f"functions.{tool.name}": tool for tool in self.tools}
            for toolbox in self.toolboxes:
                found |= stack.enter_context(toolbox.open())
            yield found

    @property
    def reply_options(self) -> dict[str, Any]:
        """The keywords of each reply, without those that are in its messages."""
        return {k: value for k, value in self.options.items() if k not in MESSAGE_KEYWORDS}

    def _list_names(self) -> list[str]:
        names = [f"functions.{tool.name}" for tool in self.tools]
        for toolbox in self.toolboxes:
            space = toolbox.namespace
            names += [f"{space.name}.{tool.name}" for tool in space.tools] or [space.name]
        return names

    def __repr__(self) -> str:
        return f"<Agent of {self.model!r}, tools: {', '.join(self._list_names()) or 'none'}>"


class Session:
    """An agent whose toolboxes stay open; see `Agent.session`."""

    def __init__(self, agent: Agent, tools: Mapping[str, Tool]) -> None:
        self.agent, self.tools = agent, tools

    def run(self, question: Question, *, budget: Budget | None = None) -> Run:
        """As `Agent.run`."""
        return self.stream(question, budget=budget).read()

    def stream(self, question: Question, *, budget: Budget | None = None) -> RunStream:
        """As `Agent.stream`."""
        agent = self.agent
        prompt = agent.conversation(question)
        return RunStream(agent, prompt, budget or agent.budget, self._keep_tools)

    @contextmanager
    def _keep_tools(self) -> Iterator[Mapping[str, Tool]]:
        yield self.tools


def is_toolbox(value: object) -> bool:
    """Whether this is a toolbox and not a function."""
    return isinstance(value, Toolbox) and not isinstance(value, Tool)


def declare_namespaces(
    conversation: Conversation, spaces: Mapping[str, ToolNamespace]
) -> Conversation:
    """The conversation with these namespaces in its system message."""
    first, *others = conversation.messages
    content = tuple(
        replace(part, tools={**(part.tools or {}), **spaces})
        if isinstance(part, SystemContent)
        else part
        for part in first.content
    )
    return Conversation((replace(first, content=content), *others))
