"""A source of views that asks another engine through `oss_lab.connect`. It has only text.

The loop is that of the agents (`oss_lab.agents.stream`), which also runs the tools. It has its own
thread: waiting for an engine must not keep the worker from a cancel or from other requests.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from oss_lab.agents.agent import Agent
from oss_lab.agents.events import Event, ReplyEnded, Stopped
from oss_lab.agents.stream import RunStream
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort
from oss_lab.server.remote import Connection
from oss_widgets.sources.generating import PERIOD
from oss_widgets.sources.kernel import Arguments, KernelSource, Work, read_object
from oss_widgets.sources.messages import AnyRun, describe_state, write_note
from oss_widgets.sources.remote_run import RemoteRun
from oss_widgets.sources.reproduce import write_question
from oss_widgets.sources.requests import (
    add_history,
    read_limit,
    read_list,
    read_question,
    read_sampling,
)
from oss_widgets.sources.tools import list_names

ONLY_TEXT = "This engine shows only text, nothing from inside the model."


class RemoteSource(KernelSource):
    """Questions to another engine, and its replies as text.

    Attributes:
        agent: has the functions that are run for every question from now on.
    """

    runs: list[RemoteRun]
    shown: RemoteRun | None

    def __init__(self, connection: Connection) -> None:
        super().__init__(f"{connection.model} at {connection.url}", {})
        self.connection = connection
        self.agent = Agent(connection)
        self.can = {"ask"}
        self.methods |= {
            "ask": self._ask,
            "step": self._step,
            "estimate": self._estimate,
            "toPython": self._to_python,
        }

    @property
    def effort(self) -> Effort:
        return self.connection.effort

    def list_tools(self) -> list[str]:
        return list_names(self.agent)

    def describe_run(self, run: AnyRun) -> dict[str, Any]:
        return {**super().describe_run(run), "missing": ONLY_TEXT}

    def ask(self, request: Mapping[str, Any]) -> RemoteRun:
        """A run for a request; nothing is sent yet.

        Raises:
            LabError: a part of the request cannot be used, or has no effect on another engine.
        """
        question = read_question(request)
        if request.get("interventions"):
            raise LabError("an intervention needs the inside of a model; this engine has only text")
        if read_list("tools", request.get("tools")):
            raise LabError("tools: give functions; nobody can answer a tool that is only described")
        asked = self.connection.conversation(
            question,
            effort=request.get("effort"),
            instructions=request.get("instructions"),
            tools=[tool.description for tool in self.agent.tools],
        )
        agent = Agent(
            self.connection, self.agent.tools, budget=self.agent.budget, **list_options(request)
        )
        run = RemoteRun(f"run-{len(self.runs) + 1}", request, agent, add_history(asked, request))
        self.add(run)
        return run

    def finish(self, run: RemoteRun, canceled: threading.Event) -> Work:
        """Read the reply of a run, run its calls, and send the text to the views.

        Raises:
            LabError: the engine cannot be reached, or the reply broke off. The view says it too.
        """
        if run.is_begun:
            raise LabError("another engine cannot continue a reply; ask again")
        run.is_begun = True
        start, sent = time.perf_counter(), 0.0
        try:
            for event in read_in_thread(run.stream, canceled):
                now = time.perf_counter()
                run.seconds = now - start
                if event is not None:
                    run.take(event)
                if isinstance(event, ReplyEnded | Stopped) or now - sent >= PERIOD:
                    sent = now
                    self._send(run)
                yield
        except LabError as error:
            run.note = write_note(error)
            raise
        finally:
            self._send(run)
            self.refresh()

    def _send(self, run: RemoteRun) -> None:
        event = {"event": "tokens", "run": run.id, "start": 0, "tokens": [], "by": "", "fresh": 0}
        self.announce({**event, **describe_state(run)})

    def _ask(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        return self.ask(read_object("request", args.get("request"))).id

    def _step(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        yield from self.finish(self.find_run(args.get("run")), canceled)

    def _estimate(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        """Not known."""
        yield

    def _to_python(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        run = self.find_run(args.get("run"))
        address = f"{self.connection.url!r}, model={self.connection.model!r}"
        load = ["import oss_lab", f"model = oss_lab.connect({address})"]
        question = write_question(run.request)
        asking = {name: run.request.get(name) for name in ("effort", "instructions")}
        given = (asking | list_options(run.request)).items()
        options = "".join(f", {name}={value!r}" for name, value in given if value is not None)
        names = ", ".join(tool.name for tool in run.agent.tools)
        if not names:
            return "\n".join([*load, f"reply = model.chat({question}{options})", ""])
        lines = ["from oss_lab.agents import Agent", *load]
        lines.append(f"agent = Agent(model, [{names}]{options})  # with your functions")
        return "\n".join([*lines, f"reply = agent.run({question}).replies[-1]", ""])


def list_options(request: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a reply that a request gives."""
    limit = read_limit(request)
    return {**read_sampling(request), **({} if limit is None else {"max_tokens": limit})}


def read_in_thread(stream: RunStream, canceled: threading.Event) -> Iterator[Event | None]:
    """The events of a stream as they come, and None while it waits.

    After a cancel the thread closes the connection at the next event of the engine.
    """
    events: SimpleQueue[Event | BaseException | None] = SimpleQueue()

    def read() -> None:
        try:
            for event in stream:
                events.put(event)
                if canceled.is_set():
                    break
            stream.close()
        except BaseException as error:
            events.put(error)
        events.put(None)

    threading.Thread(target=read, name="oss_widgets engine", daemon=True).start()
    while True:
        try:
            event = events.get(timeout=PERIOD)
        except Empty:
            yield None
            continue
        if event is None:
            return
        if isinstance(event, BaseException):
            raise event
        yield event
