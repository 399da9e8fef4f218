"""Chat: ask a model from Python or from the notebook, and read the reply."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from oss_lab.agents.agent import Agent
from oss_lab.agents.budget import Budget
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.arguments import check_value, describe, read_annotation
from oss_lab.lab import Lab
from oss_lab.plots import Passage
from oss_lab.record.reply import Reply
from oss_lab.record.trace import Trace
from oss_lab.server.remote import Connection
from oss_widgets.sources.kernel import Work
from oss_widgets.sources.lab import LabSource
from oss_widgets.sources.messages import describe_state
from oss_widgets.sources.remote import RemoteSource
from oss_widgets.sources.requests import read_list
from oss_widgets.sources.tools import split_tools
from oss_widgets.views.transcript import show_run
from oss_widgets.views.view import View

Of = Lab | Connection | Reply | Trace | View


class Chat(View):
    """Ask a question, change the effort, read the reply by channel.

        chat = Chat(lab, "What is 347 * 62?", effort="high")
        chat.reply.final
        chat.effort = "low"                   # asks again
        Chat(lab, "What is 4815 * 884?", tools=[multiply, Browser()]).data()["calls"]

    A tool that you give as a typed function, a `Tool` or a toolbox of `oss_lab.agents` is run when
    a reply ends with a call of it, and the reply continues. It is declared in every question of
    this view and of the views that share its runs. A tool that you only describe is not run: the
    view then asks a person for the output. A page cannot add tools that are run.

    Toolboxes have fresh state for each question, which forks share. Python processes end with the
    last view or with the kernel. A tool is not interrupted: canceling takes effect when it returns.

    Args:
        of: a Lab; a Connection that `oss_lab.connect` returns, of which only the text is known; or
            a Reply, a Trace or a view, as in `View`.
        question: asked at once, unless `ask` is false.
        effort: by default the lab's.
        settings: `instructions`, `tools`, `history`, `toolOutputs`, `sampling`, `maxTokens` and
            `interventions`, as a Request of `js/source/source.js`.
        budget: its `calls` limit the calls of one question; by default `Budget()`.
    """

    NAME, TITLE, SHOWS_INSIDE = "chat", "Chat", False

    def __init__(
        self,
        of: Of,
        question: str | None = None,
        effort: Effort | None = None,
        ask: bool = True,
        *,
        lab: Lab | None = None,
        budget: Budget | None = None,
        **settings: Any,
    ) -> None:
        for name, value, kind in (
            ("question", question, str | None),
            ("effort", effort, Effort | None),
            ("ask", ask, bool),
        ):
            if (expected := read_annotation(kind)) is not None:
                check_value(name, expected, value)
        if question is not None and not isinstance(of, Lab | Connection | View):
            raise LabError(f"a question needs a Lab, got {describe(of)}")
        if unknown := settings.keys() - SETTINGS:
            raise LabError(f"Chat has no {min(unknown)!r}; it has {', '.join(sorted(SETTINGS))}")
        described, run_here = split_tools(read_list("tools", settings.get("tools")))
        if "tools" in settings:
            settings["tools"] = described
        if budget is not None:
            check_budget(budget, run_here)
        super().__init__(of, lab=lab)
        if run_here:
            self._run_tools(run_here, budget)
        effort = effort or self.source.effort
        self._request = {**settings, "question": question or "", "effort": effort}
        self.options = {name: self._request[name] for name in ("question", "effort")}
        if question is not None and ask:
            self._ask()

    @property
    def question(self) -> str:
        """The question of the shown run; set it to ask another one."""
        return self._current["question"]

    @question.setter
    def question(self, question: str) -> None:
        self._ask(question=question)

    @property
    def effort(self) -> str:
        """The effort of the shown run; set it to ask again."""
        return self._current["effort"]

    @effort.setter
    def effort(self, effort: str) -> None:
        self._ask(effort=effort)

    @property
    def _current(self) -> Mapping[str, Any]:
        """The request of the shown run; before there is one, that of this view."""
        shown = self.source.shown
        return (None if shown is None else shown.request) or self._request

    def _run_tools(self, tools: list[Any], budget: Budget | None) -> None:
        """Run these tools from the next question on."""
        source = self.source
        if isinstance(source, LabSource):
            source.agent = Agent(source.lab, tools, budget=budget)
        elif isinstance(source, RemoteSource):
            agent = Agent(source.connection, tools, budget=budget)
            if agent.toolboxes:
                name = agent.toolboxes[0].namespace.name
                raise LabError(f"another engine takes only functions, not the toolbox {name!r}")
            source.agent = agent
        else:
            raise LabError("tools are run for a Lab; this view has no model that calls them")
        self.stored = self._describe()  # it names them

    def _ask(self, **changes: str) -> None:
        """Ask the current question with these changes; the worker generates the reply.

        Raises:
            LabError: the question or the effort cannot be used, or the view has no model.
        """
        source = self.source
        if not isinstance(source, LabSource | RemoteSource):
            raise LabError("this view has no model to ask: make it from a Lab")
        if isinstance(source, LabSource) and (active := source.lab.interventions):
            raise LabError(f"{active[0]} is active, but a view ignores `with` blocks: end it first")
        if self._job is not None:
            self._job.canceled.set()
        request = {**self._current, **changes}

        def ask() -> Work:
            yield
            before, run = source.shown, source.ask(request)
            source.show(run)
            return before, run

        before, run = source.call(ask())
        canceled = threading.Event()
        self._job = source.worker.submit(source.finish(run, canceled), canceled)

        def settle(_: Future[Any]) -> None:
            is_empty = len(run.ids) == run.prompt_length and not run.list_messages()
            if is_empty and run.note is None and before is not None and source.shown is run:
                source.show(before)  # it was canceled before its first token

        self._job.done.add_done_callback(settle)

    def _compute(self, run: Any) -> Work:
        yield
        state = describe_state(run)
        asked = {name: (run.request or {}).get(name) for name in ("question", "effort")}
        kept = (
            "messages",
            "calls",
            "answer",
            "stop",
            "note",
            "diagnostics",
            "openCalls",
            "seconds",
        )
        return {**asked, **{name: state[name] for name in kept}}

    def _still(self) -> Passage:
        return show_run(self.source.shown)


def check_budget(budget: Budget, tools: list[Any]) -> None:
    """Raise LabError for a budget without a tool, or with limits that a view does not keep."""
    if not isinstance(budget, Budget):
        raise LabError(f"expected a Budget such as Budget(calls=5), got {describe(budget)}")
    if not tools:
        raise LabError("budget limits the calls of tools that are run, but tools has none")
    if budget.tokens is not None or budget.seconds is not None:
        raise LabError("a view keeps only the calls of a budget; limit tokens with maxTokens")


SETTINGS = {
    "instructions",
    "tools",
    "history",
    "toolOutputs",
    "sampling",
    "maxTokens",
    "interventions",
}
