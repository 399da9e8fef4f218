"""The Python side of a view: serves the requests of `js/source/kernel.js`.

    a view sends     {id, method, args}
    Python answers   {id, result} and binary buffers, {id, done}, or {id, error: one sentence}
    to every view    {event: "runs", run}             a run was added
                     {event: "shown", run: id}        another run is shown
                     {event: "tokens", run: id, start, tokens, by, fresh, …state}

The tokens of an event replace those from `start` on. `fresh` is how many of them the request `by`
has generated. They are sent at most every PERIOD, so a fast model does not flood the connection.
All work happens in the source's worker, so a long reply never blocks the connection; `ping` and
`cancel` are answered at once.
"""

import threading
import traceback
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol
from weakref import WeakSet

import tiktoken
from torch import Tensor

from oss_lab.errors import LabError, explain_unknown
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.arguments import describe
from oss_widgets.sources.messages import AnyRun, describe_run, pack
from oss_widgets.sources.worker import Job, Worker

Work = Generator[None, None, Any]
Arguments = Mapping[str, Any]
Send = Callable[[dict[str, Any], list[bytes]], None]


class Listener(Protocol):
    """A view: it gets every event, and hears when a reply is finished or another run is shown."""

    def deliver(self, content: dict[str, Any], buffers: list[bytes]) -> None: ...
    def refresh(self) -> None: ...


class KernelSource:
    """Runs, what can be done with them, and the views that show them.

    A subclass says what it can do: `can`, `points`, and more entries of `methods`.

    Attributes:
        can: abilities, as in `js/source/source.js`.
        points: the layers of each point that it has; None for a point outside the layers.
        methods: what a view can request, by name.
    """

    encoding: tiktoken.Encoding | None = None

    def __init__(self, name: str, config: Mapping[str, Any] | None = None) -> None:
        self.name, self.config = name, config
        self.can: set[str] = set()
        self.points: dict[str, list[int] | None] = {}
        self.examples: list[dict[str, Any]] = []
        self.runs: list[Any] = []
        self.shown: Any = None
        self.worker = Worker(self.end)
        self.views: WeakSet[Listener] = WeakSet()
        self.methods: dict[str, Callable[[Arguments, str, threading.Event], Work]] = {
            "hello": self._hello,
            "points": self._points,
            "show": self._show,
        }
        self._jobs: dict[str, Job] = {}

    @property
    def effort(self) -> Effort:
        """The effort of a question that names none."""
        return "medium"

    def list_tools(self) -> list[str]:
        """The full names of the tools that are run for every question."""
        return []

    def end(self) -> None:
        """Release what must not outlive the source; called in the worker as its last work."""

    # What views request

    def receive(self, content: Mapping[str, Any], send: Send) -> None:
        """Take a message of a view; `send` answers it."""
        id, method = content.get("id"), content.get("method")
        args = content.get("args") or {}
        if not isinstance(id, str):
            raise LabError(f"a view sent the message {content!r}, which has no id")
        if method == "ping":
            send({"id": id, "result": None}, [])
        elif not isinstance(args, Mapping):
            send({"id": id, "error": f"args must be an object, got {describe(args)}"}, [])
        elif method == "cancel":
            if job := self._jobs.get(str(args.get("id"))):
                job.canceled.set()
        else:
            canceled = threading.Event()
            self._jobs[id] = job = self.worker.submit(
                self._serve(id, str(method), args, send, canceled), canceled
            )
            job.done.add_done_callback(lambda done: self._end(id, done.cancelled(), send))

    def _end(self, id: str, was_canceled: bool, send: Send) -> None:
        self._jobs.pop(id, None)
        if was_canceled:
            send({"id": id, "done": True}, [])

    def _serve(
        self, id: str, method: str, args: Arguments, send: Send, canceled: threading.Event
    ) -> Work:
        """Do what a message requests, and answer with the result or one sentence."""
        try:
            if method not in self.methods:
                raise LabError(explain_unknown("request", method, self.methods))
            result = yield from self.methods[method](args, id, canceled)
            content, buffers = pack(result)
            send({"id": id, "result": content, "done": True}, buffers)
        except LabError as error:
            send({"id": id, "error": str(error)}, [])
        except Exception as error:
            traceback.print_exc()
            send(
                {"id": id, "error": f"{explain_bug(error)}; the cell's output has the details"}, []
            )

    def call(self, work: Work) -> Any:
        """Do some work in the worker and wait for it; an interrupt of the kernel cancels it.

        Raises:
            LabError: what the work raises.
        """
        job = self.worker.submit(work, threading.Event())
        try:
            return job.done.result()
        except KeyboardInterrupt:
            job.canceled.set()
            raise

    def find_run(self, id: Any) -> Any:
        """The run with this id.

        Raises:
            LabError: there is none.
        """
        found = next((run for run in self.runs if run.id == id), None)
        if found is None:
            raise LabError(f"there is no run {id!r}; ask a question first")
        return found

    def describe(self, runs: list[Any]) -> dict[str, Any]:
        """All that a view needs to begin, with these runs."""
        return {
            "name": self.name,
            "config": self.config,
            "can": sorted(self.can),
            "points": self.points,
            "examples": self.examples,
            "tools": self.list_tools(),
            "runs": [self.describe_run(run) for run in runs],
            "shown": None if self.shown is None else self.shown.id,
        }

    def describe_run(self, run: AnyRun) -> dict[str, Any]:
        return describe_run(run, self.encoding)

    def _hello(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        return self.describe(self.runs)

    def _show(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        self.show(self.find_run(args.get("run")))

    def _points(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        run, name, layer = self.find_run(args.get("run")), args.get("name"), args.get("layer")
        if not isinstance(layer, int | None):
            raise LabError(f"layer must be an integer, got {layer!r}")
        limits = read_object("range", args.get("range")) or {"from": 0, "to": len(run.ids)}
        begin, end = limits.get("from"), limits.get("to")
        if not (isinstance(begin, int) and isinstance(end, int) and begin >= 0):
            raise LabError(f"the range {begin!r} to {end!r} must be two positions")
        if begin >= (end := min(end, len(run.ids))):
            raise LabError(f"position {begin} does not exist; the run has {len(run.ids)} tokens")
        found = self.read_point(run, str(name), layer, begin, end)
        return {"shape": list(found.shape), "data": found}

    def read_point(self, run: Any, name: str, layer: int | None, begin: int, end: int) -> Tensor:
        """A point at positions begin ... end - 1 [seq ...].

        Raises:
            LabError: this source does not have it.
        """
        raise LabError(f"{name} is not known for these tokens")

    # What views hear

    def add(self, run: Any) -> None:
        """Keep a run and announce it."""
        self.runs.append(run)
        self.announce({"event": "runs", "run": self.describe_run(run)})

    def show(self, run: Any) -> None:
        """Show a run in every view."""
        self.shown = run
        self.announce({"event": "shown", "run": run.id})
        self.refresh()

    def announce(self, event: Any) -> None:
        """Send an event to every view."""
        content, buffers = pack(event)
        for view in list(self.views):
            view.deliver(content, buffers)

    def refresh(self) -> None:
        """Renew the stored output of every view."""
        for view in list(self.views):
            view.refresh()


def read_object(name: str, given: Any) -> Mapping[str, Any]:
    """An object of a message; None is an empty one.

    Raises:
        LabError: it is something else.
    """
    if not isinstance(given, Mapping | None):
        raise LabError(f"{name} must be an object, got {describe(given)}")
    return given or {}


def explain_bug(error: BaseException) -> str:
    """One sentence about an exception that is not the user's mistake."""
    text = " ".join(str(error).split())
    return f"a bug stopped this ({type(error).__name__}{': ' if text else ''}{text})"
