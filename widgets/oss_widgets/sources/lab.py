"""A source of views that asks a loaded model."""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from oss_lab.agents.agent import Agent, declare_namespaces
from oss_lab.agents.calls import CallRecord, find_name
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation
from oss_lab.harmony.demands import find_declared_tools
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.arguments import describe
from oss_lab.hooks.points import POINTS
from oss_lab.lab import Lab
from oss_lab.lab.options import MAX_TOKENS
from oss_lab.nano.calculator import run_calculator
from oss_lab.nano.gallery import GALLERY
from oss_lab.record.reply import Reply, ToolCall
from oss_lab.tokenizer import encode_text
from oss_widgets.sources.analyses import ANALYSES, analyze
from oss_widgets.sources.generating import Generating
from oss_widgets.sources.interventions import read_interventions
from oss_widgets.sources.kernel import Arguments, KernelSource, Work, read_object
from oss_widgets.sources.microscope import read_block
from oss_widgets.sources.reading import time_token
from oss_widgets.sources.reproduce import write_python
from oss_widgets.sources.requests import (
    add_history,
    read_described,
    read_limit,
    read_list,
    read_question,
    read_sampling,
)
from oss_widgets.sources.run import Run, Settings
from oss_widgets.sources.tools import RunTools, list_names

KEPT_RUNS = 8  # of older ones, the KV caches are released
USUAL_TOKENS = 256  # of a reply, as long as none is finished
CALCULATOR = "functions.calculator"


class LabSource(KernelSource):
    """Runs of a lab: asked, generated, forked and analyzed in Python.

    Attributes:
        agent: has the tools that are run for every question from now on; None: there are none.
    """

    runs: list[Run]
    shown: Run | None
    agent: Agent | None = None

    def __init__(self, lab: Lab) -> None:
        """The views of `lab`.

        Raises:
            LabError: an intervention is active, which the worker would not see.
        """
        if lab.interventions:
            raise LabError(
                f"{lab.interventions[0]} is active, and a view does not take part in a `with`"
                " block: make the view outside, and intervene in it"
            )
        name = lab.checkpoint.folder.name if lab.checkpoint else "model"
        super().__init__(name, vars(lab.config))
        self.lab, self.encoding = lab, lab.tokenizer
        self.is_nano = lab.tokenizer.name == "nano"
        self.examples = [asdict(example) for example in GALLERY] if self.is_nano else []
        layers = list(range(lab.config.num_hidden_layers))
        self.points = {each: layers if POINTS[each].is_per_layer else None for each in POINTS}
        self.can = {"ask", "fork", "points", *ANALYSES}
        self.methods |= {
            "ask": self._ask,
            "step": self._step,
            "fork": self._fork,
            "answerCalls": self._answer_calls,
            "estimate": self._estimate,
            "toPython": self._to_python,
            "analyze": self._analyze,
        }
        self._results: dict[tuple[str, int, str, str], Any] = {}

    @property
    def effort(self) -> Effort:
        return self.lab.effort

    def list_tools(self) -> list[str]:
        return list_names(self.agent)

    # Asking and generating

    def ask(self, request: Mapping[str, Any]) -> Run:
        """A run with the prompt of a request; nothing is generated yet.

        Raises:
            LabError: the question is empty, or another part cannot be used.
        """
        question = read_question(request)
        made = read_interventions(request.get("interventions"), self.lab.config)
        run = Run(self.lab, self._new_id(), request, self._read_settings(request), made)
        run.begin(self._build_prompt(question, request))
        run.tools = self.agent and RunTools(self.agent)
        self.add(run)
        return run

    def take_reply(self, reply: Reply) -> Run:
        """A run with a reply that exists already."""
        settings = Settings(self.lab.sampling, MAX_TOKENS)
        run = Run(self.lab, self._new_id(), None, settings)
        run.take_reply(reply)
        self.add(run)
        return run

    def add(self, run: Run) -> None:
        """Add a run, and release the memory of old ones."""
        super().add(run)
        kept = [each.tools for each in self.runs[-KEPT_RUNS:]]
        for old in self.runs[:-KEPT_RUNS]:
            old.release()
            if old.tools is not None and old.tools not in kept:
                old.tools.close()

    def end(self) -> None:
        for run in self.runs:
            if run.tools is not None:
                run.tools.close()

    def _new_id(self) -> str:
        return f"run-{len(self.runs) + 1}"

    def _read_settings(self, request: Mapping[str, Any]) -> Settings:
        sampling: Sampling = replace(self.lab.sampling, **read_sampling(request))
        return Settings(sampling, read_limit(request) or MAX_TOKENS)

    def _build_prompt(self, question: str, request: Mapping[str, Any]) -> Conversation:
        run_here = [] if self.agent is None else [tool.description for tool in self.agent.tools]
        asked = self.lab.conversation(
            question,
            effort=request.get("effort"),
            instructions=request.get("instructions"),
            tools=[*read_described(request, self.agent), *run_here],
        )
        if self.agent is not None and self.agent.toolboxes:
            spaces = [toolbox.namespace for toolbox in self.agent.toolboxes]
            asked = declare_namespaces(asked, {space.name: space for space in spaces})
        return add_history(asked, request)

    def finish(self, run: Run, canceled: threading.Event, by: str = "", limit: int | None = None):
        """Generate until a run stops or is canceled, and send its tokens to the views."""
        return Generating(self, run, canceled, by).generate(limit, self.answer_call)

    def answer_call(self, run: Run, call: ToolCall) -> CallRecord | None:
        """The output of a call: the request's, a tool's or the calculator's.

        None if only a person can write it: nothing can run a tool that is only described.

        Raises:
            LabError: a toolbox cannot open.
        """
        request = run.request or {}
        known = request.get("toolOutputs") or request.get("tool_outputs")
        if known and call.arguments in known:
            return CallRecord(call, "ok", known[call.arguments])
        if run.tools is not None:
            prompt = run.exchanges[0].builder.prompt
            declared = find_declared_tools(prompt) if prompt else None
            name = find_name(call.name, dict.fromkeys(declared or ()))
            described = read_described(request, run.tools.agent)
            if name not in [f"functions.{each.name}" for each in described]:
                return run.tools.run(call)
        return calculate(call) if self.is_nano and call.name == CALCULATOR else None

    # Requests

    def _ask(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        return self.ask(read_object("request", args.get("request"))).id

    def _step(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        count = args.get("count")
        if not isinstance(count, int | None):
            raise LabError(f"count must be an integer, got {count!r}")
        yield from self.finish(self.find_run(args.get("run")), canceled, id, count)

    def _fork(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        run, at = self.find_run(args.get("run")), args.get("at")
        change = read_object("change", args.get("change"))
        made, written, text = (change.get(name) for name in ("interventions", "ids", "text"))
        if not isinstance(text, str | None):
            raise LabError(f"text must be text, got {describe(text)}")
        if written is None:
            written = encode_text(self.lab.tokenizer, text or "")
        for each in read_list("ids", written):
            if not isinstance(each, int) or not 0 <= each < self.lab.config.vocab_size:
                raise LabError(f"{each!r} is not a token id of this model")
        child = run.fork(
            self._new_id(),
            at,
            written,
            None if made is None else read_interventions(made, self.lab.config),
        )
        self.add(child)
        return child.id

    def _answer_calls(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        run = self.find_run(args.get("run"))
        run.append_outputs(read_list("outputs", args.get("outputs")))
        Generating(self, run, canceled, id).send_all()

    def _estimate(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        """Expected seconds: of as many tokens as the longest finished reply at this effort."""
        yield
        run = self.find_run(args.get("run"))
        effort = (run.request or {}).get("effort")
        done = [
            len(each.ids) - each.prompt_length
            for each in self.runs
            if each.stop and (each.request or {}).get("effort") == effort
        ]
        left = max(done, default=USUAL_TOKENS) - (len(run.ids) - run.prompt_length)
        known = [each.seconds_per_token for each in self.runs if each.seconds_per_token]
        return max(0, left) * (known[-1] if known else time_token(run))

    def _to_python(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        yield
        return write_python(self.find_run(args.get("run")), self.runs)

    def _analyze(self, args: Arguments, id: str, canceled: threading.Event) -> Work:
        name, options = str(args.get("name")), read_object("options", args.get("options"))
        if name == "block":  # the weights belong to no run
            yield
            return read_block(self.lab, options)
        return (yield from self.analyze(self.find_run(args.get("run")), name, options))

    def analyze(self, run: Run, name: str, options: Mapping[str, Any]) -> Work:
        """An analysis of `oss_widgets.sources.analyses`; its result is kept for other views."""
        key = (run.id, len(run.ids), name, repr(sorted(options.items())))
        if key not in self._results:
            self._results[key] = yield from analyze(run, name, options)
            self.refresh()
        return self._results[key]

    def find_result(self, run: Run, name: str) -> Any:
        """The newest result of an analysis of a run, or None."""
        kept = [x for key, x in self._results.items() if key[:3] == (run.id, len(run.ids), name)]
        return kept[-1] if kept else None

    def read_point(self, run: Run, name: str, layer: int | None, begin: int, end: int) -> Tensor:
        return run.recording.get(name, layer, begin, end)


def calculate(call: ToolCall) -> CallRecord:
    """Run nano's calculator."""
    start = time.perf_counter()
    try:
        status, output = "ok", run_calculator(call.arguments)
    except LabError as error:
        status, output = "failed", f"error: {error}"
    return CallRecord(call, status, output, seconds=time.perf_counter() - start)
