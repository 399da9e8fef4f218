"""`View`: what every view in a notebook has."""

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

import anywidget
import traitlets
from IPython.display import display, update_display

from oss_lab.cli._visible import escape_controls
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import SOURCES, describe
from oss_lab.hooks.selection import is_integer
from oss_lab.lab import Lab
from oss_lab.plots import Passage
from oss_lab.record.reply import Reply
from oss_lab.record.trace import Trace
from oss_lab.server.remote import Connection
from oss_widgets.sources.kernel import KernelSource
from oss_widgets.sources.lab import LabSource
from oss_widgets.sources.messages import pack
from oss_widgets.sources.remote import RemoteSource
from oss_widgets.sources.stored import TraceSource
from oss_widgets.sources.worker import Job
from oss_widgets.views.script import read_css, read_script
from oss_widgets.views.still import show_sentence

PARTS = ("token", "layer", "head", "expert")
VIEW_TYPE = "application/vnd.jupyter.widget-view+json"
PATIENCE = 20.0  # seconds that a cell waits for a reply before it shows the view


class View(anywidget.AnyWidget):
    """A view of a model's runs; `of` says whose.

    A Lab answers questions. A Reply needs its lab as `lab`. A Trace needs no model. Another View
    shares its source, its run and its selection. A Connection has only text, which Chat shows.

    Attributes:
        selection: `token`, `layer`, `head` and `expert`, each a number or None, and `pinned`, a
            list of such places. Read it, or set it to a dictionary with the parts that you want.
        source: the runs, and what can be done with them.
    """

    view = traitlets.Unicode().tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    stored = traitlets.Dict().tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    own_id = traitlets.Unicode().tag(sync=True)  # of its model, for the front end
    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)

    TITLE = "View"
    NAME = ""
    SHOWS_INSIDE = True  # not only the text of replies

    def __init__(
        self, of: "Lab | Connection | Reply | Trace | View", *, lab: Lab | None = None
    ) -> None:
        """Show `of`.

        Raises:
            LabError: it is none of these, or a Reply without its lab.
        """
        source = self._find_source(of, lab)
        self._connect(source)
        if isinstance(of, View):
            traitlets.link((of, "selection"), (self, "selection"))

    def _connect(self, source: KernelSource) -> None:
        """Start the widget on a source."""
        if self.SHOWS_INSIDE and isinstance(source, RemoteSource):
            raise LabError(f"{self.TITLE} needs the inside of a model; this engine shows only text")
        self.source = source
        self._displays: list[str] = []
        self._job: Job | None = None
        own_id = uuid4().hex
        super().__init__(
            view=self.NAME,
            selection={},
            stored=self._describe(),
            own_id=own_id,
            model_id=own_id,
        )
        self.on_msg(lambda _, content, buffers: source.receive(content, self.deliver))
        source.views.add(self)

    @staticmethod
    def _find_source(of: Any, lab: Any) -> KernelSource:
        if lab is not None and not isinstance(lab, Lab):
            raise LabError(f"lab must be {SOURCES['Lab']}, got {describe(lab)}")
        if isinstance(of, Reply):
            if lab is None:
                raise LabError("a Reply needs the lab that can read it again: pass lab=lab")
            source = LabSource(lab)
            source.shown = source.take_reply(of)
            return source
        if lab is not None:
            raise LabError("lab has an effect only with a Reply; leave it out")
        if isinstance(of, View):
            return of.source
        if isinstance(of, Trace):
            return TraceSource(of)
        if isinstance(of, Lab):
            return LabSource(of)
        if isinstance(of, Connection):
            return RemoteSource(of)
        raise LabError(
            "expected a Lab, a Reply with its lab, a Trace or another view, got " + describe(of)
        )

    # Traits

    @traitlets.default("_esm")
    def _read_script(self) -> str:
        return read_script()

    @traitlets.default("_css")
    def _read_css(self) -> str:
        return read_css()

    @traitlets.validate("selection")
    def _check_selection(self, proposal: Any) -> dict[str, Any]:
        """Complete a selection; raises LabError for one that has other parts or values."""
        return check_selection(proposal["value"])

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take over the front end's state; it gets a selection back that cannot be used."""
        try:
            check_selection(sync_data.get("selection", {}))
        except LabError:
            self.send_state("selection")
            sync_data = {name: x for name, x in sync_data.items() if name != "selection"}
        super().set_state(sync_data)

    # What is shown

    @property
    def run(self) -> Any:
        """The run that is shown; waits for a reply that was requested in Python.

        Raises:
            LabError: nothing was asked yet.
        """
        self.wait()
        if self.source.shown is None:
            raise LabError("nothing is shown yet: ask a question first")
        return self.source.shown

    @property
    def reply(self) -> Reply:
        """The last reply of the shown run.

        Raises:
            LabError: nothing was asked yet, or the view shows a trace.
        """
        run = self.run
        if not hasattr(run, "reply"):
            raise LabError(f"this {self.TITLE.lower()} shows stored tokens, not a reply")
        return run.reply

    def wait(self, seconds: float | None = None) -> None:
        """Wait until a reply that was requested in Python is finished; an interrupt ends it.

        Args:
            seconds: wait at most this long; None has no limit.
        """
        if self._job is None:
            return
        try:
            self._job.done.result(seconds)
        except (CancelledError, TimeoutError):
            pass
        except KeyboardInterrupt:
            self._job.canceled.set()
            raise

    def data(self) -> dict[str, Any]:
        """What is drawn, as plain numbers, texts and lists. Needs no front end.

        Raises:
            LabError: there is nothing to draw yet.
        """
        run = self.run
        return self.source.call(self._compute(run))

    def _compute(self, run: Any) -> Any:
        """A generator that returns `data()`; runs in the worker."""
        raise NotImplementedError

    def _still(self) -> Passage:
        """What is shown without a kernel; runs in the worker."""
        raise NotImplementedError

    # Front end

    def deliver(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        """Send a message to the front end."""
        self.send(content, buffers)

    def refresh(self) -> None:
        """Renew what a saved notebook holds; called in the worker."""
        self.stored = self._describe()
        bundle = self._still_bundle() if self._displays else {}
        for display_id in self._displays:
            update_display(bundle, raw=True, display_id=display_id)

    def _describe(self) -> dict[str, Any]:
        shown = self.source.shown
        return pack(self.source.describe([] if shown is None else [shown]))[0]

    def _still_bundle(self) -> dict[str, Any]:
        passage = self._make_still()
        html = f'<div class="oss-stored">{passage.html}</div>'
        return {"text/html": html, "text/plain": escape_controls(passage.sentence)}

    def _make_still(self) -> Passage:
        """The still, or a sentence about what is missing."""
        if self.source.shown is None:
            return show_sentence(f"{self.TITLE}: nothing was asked yet.")
        try:
            return self._still()
        except LabError as error:
            return show_sentence(f"{self.TITLE}: {error}.")

    def _wait_briefly(self) -> None:
        """Let the stored output have the reply that was just requested, unless it takes long.

        An interrupt ends the reply; what there is of it is shown.
        """
        with suppress(KeyboardInterrupt):
            try:
                self.wait(PATIENCE)
            except LabError:
                shown = self.source.shown
                if shown is None or shown.note is None:  # the view does not say it
                    raise

    def _ipython_display_(self, **_: Any) -> None:
        """Two outputs: the view, and a copy for readers without a kernel. The copy is renewed
        after every reply; JupyterLab hides it while the view is there."""
        self._wait_briefly()
        title = f"{self.TITLE}: interactive where a kernel runs; a copy follows."
        display({VIEW_TYPE: self._reference(), "text/plain": title}, raw=True)
        display_id = f"oss-{self.model_id}-{len(self._displays)}"
        self._displays.append(display_id)
        display(self._in_worker_still(), raw=True, display_id=display_id)

    def _in_worker_still(self) -> dict[str, Any]:
        def work() -> Any:
            yield
            return self._still_bundle()

        return self.source.call(work())

    def _reference(self) -> dict[str, Any]:
        return {"version_major": 2, "version_minor": 0, "model_id": self.model_id}

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # type: ignore[override]
        self._wait_briefly()
        return {VIEW_TYPE: self._reference(), **self._in_worker_still()}

    def close(self) -> None:
        """Remove the view; its source stops working once its last view is closed."""
        if getattr(self, "source", None) is not None:
            self.source.views.discard(self)
            if not len(self.source.views):
                self.source.worker.close()
        super().close()


def check_selection(given: Any) -> dict[str, Any]:
    """A selection with all its parts.

    Raises:
        LabError: it has other parts or values.
    """
    if not isinstance(given, Mapping):
        raise LabError(f"a selection must be a dictionary, got {describe(given)}")
    parts = dict(cast("Mapping[str, Any]", given))
    pinned = parts.pop("pinned", None) or []
    if not isinstance(pinned, list | tuple):
        raise LabError(f"pinned must be a list of places, got {describe(pinned)}")
    places = cast("Sequence[Any]", pinned)
    return {**check_place(parts), "pinned": [check_place(each) for each in places]}


def check_place(given: Any) -> dict[str, int | None]:
    """A place with all its parts.

    Raises:
        LabError: it has another part, or a value that is not a number or None.
    """
    if not isinstance(given, Mapping):
        raise LabError(f"a place must be a dictionary, got {describe(given)}")
    place = cast("Mapping[str, Any]", given)
    if unknown := set(place) - set(PARTS):
        names = ", ".join(PARTS)
        raise LabError(f"a selection has {names} and pinned, not {min(map(str, unknown))!r}")
    for name, value in place.items():
        if value is not None and (not is_integer(value) or int(value) < 0):
            raise LabError(f"selection: {name} must be an index or None, got {describe(value)}")
    return {
        name: None if place.get(name) is None else int(cast(int, place[name])) for name in PARTS
    }
