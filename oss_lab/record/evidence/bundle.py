"""A bundle of evidence: what a model wrote, how it was asked, and where its traces are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.selection import Selection
from oss_lab.record.reply import Stop
from oss_lab.record.trace import Origin, Trace, read_trace

if TYPE_CHECKING:
    import pandas

FILE = "evidence.json"
TRACES = "traces"
POINTS = ("moe.expert_ids", "moe.expert_weights", "moe.margin", "attn.sink_mass")


@dataclass(frozen=True)
class Asked:
    """One question of a recording; `instructions` are the developer message, None for none."""

    name: str
    question: str
    instructions: str | None = None


@dataclass(frozen=True)
class Stamp:
    """What was asked, and how.

    Attributes:
        model: what the model is called.
        config: the fields of its `ModelConfig`.
        origin: of the replies; the traces have their own, whose kernels may be others.
        max_tokens: of a reply.
        time: when the recording was begun, in UTC.
    """

    model: str
    config: Mapping[str, Any]
    origin: Origin
    sampling: Sampling
    max_tokens: int
    time: str


@dataclass(frozen=True)
class Written:
    """A reply, without its log-probabilities.

    Attributes:
        prompt: the number of what was asked.
        prompt_ids, ids: of the rendered prompt, and of what was generated behind it.
        text: by channel; `tokens` counts them, `format` what is no content.
        stop: as in `oss_lab.record.reply.Reply`.
    """

    prompt: int
    effort: Effort
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: Mapping[str, str]
    tokens: Mapping[str, int]
    stop: Stop

    @property
    def trace(self) -> str:
        """The name of its trace's file within the folder."""
        return trace_name(self.prompt, self.effort)


@dataclass(frozen=True)
class Evidence:
    """A bundle; `replies` go prompt by prompt, each at low, medium and high effort."""

    folder: Path
    stamp: Stamp
    prompts: tuple[Asked, ...]
    replies: tuple[Written, ...]

    @property
    def traces(self) -> "Traces":
        """The trace of each reply, read when it is asked for."""
        return Traces(self)

    def effort_curve(self) -> "pandas.DataFrame":
        """Tokens by prompt, effort and channel; see `tables.py` for this and the others."""
        from oss_lab.record.evidence import tables

        return tables.effort_curve(self)

    def routes(self) -> "pandas.DataFrame":
        """How often each expert was chosen, by effort, channel and layer."""
        from oss_lab.record.evidence import tables

        return tables.routes(self)

    def margins(self) -> "pandas.DataFrame":
        """How clear the choice of experts was, by effort, channel and layer."""
        from oss_lab.record.evidence import tables

        return tables.margins(self)

    def sinks(self) -> "pandas.DataFrame":
        """Attention that went to the sink, by effort, channel, layer and head."""
        from oss_lab.record.evidence import tables

        return tables.sinks(self)


class Traces:
    """Traces of a bundle in the order of its replies; one is in memory only while it is used."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def __len__(self) -> int:
        return len(self._evidence.replies)

    def __iter__(self) -> Iterator[Trace]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, number: int) -> Trace:
        """The trace of reply `number`.

        Raises:
            LabError: the file is missing or damaged, or is the trace of something else.
        """
        reply, stamp = self._evidence.replies[number], self._evidence.stamp
        file = self._evidence.folder / reply.trace
        if not file.is_file():
            raise LabError(f"{file} is missing: record it again, or copy the whole folder")
        trace = read_trace(file)
        wrong = f"{file} is no trace of the reply that {FILE} says it is of"
        if trace.tokens != (*reply.prompt_ids, *reply.ids):
            raise LabError(f"{wrong}: its tokens are others")
        if trace.origin.checkpoint != stamp.origin.checkpoint:
            raise LabError(f"{wrong}: it comes from another checkpoint")
        if trace.selection != Selection(POINTS):
            raise LabError(f"{wrong}: it holds other points, layers, heads or positions")
        if trace["moe.expert_ids"].max() >= stamp.config["num_experts"]:
            raise LabError(f"{wrong}: it names an expert that the model does not have")
        return trace


def trace_name(prompt: int, effort: Effort) -> str:
    """`traces/000-low.safetensors`."""
    return f"{TRACES}/{prompt:03}-{effort}.safetensors"
