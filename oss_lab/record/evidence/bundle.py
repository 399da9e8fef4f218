"""A bundle of evidence: a model's replies, the settings that produced them, and their traces."""

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
class RecordedPrompt:
    """One prompt of a recording. `instructions` are the developer message, or None."""

    name: str
    question: str
    instructions: str | None = None


@dataclass(frozen=True)
class RecordingSettings:
    """The settings of a recording.

    Attributes:
        model: the name of the model.
        config: the fields of its `ModelConfig`.
        origin: how the replies were computed; each trace has its own, perhaps with other kernels.
        max_tokens: the limit per reply.
        time: when the recording started, in UTC.
    """

    model: str
    config: Mapping[str, Any]
    origin: Origin
    sampling: Sampling
    max_tokens: int
    time: str


@dataclass(frozen=True)
class RecordedReply:
    """A reply, without its log-probabilities.

    Attributes:
        prompt: the index of its prompt.
        prompt_ids, ids: token ids of the rendered prompt, and those generated after it.
        text: the text of each channel.
        tokens: the number of tokens on each channel; `format` counts all that are not content.
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
        """The path of its trace file inside the folder."""
        return trace_name(self.prompt, self.effort)


@dataclass(frozen=True)
class Evidence:
    """A bundle. `replies` are ordered by prompt, with low, medium and high effort for each."""

    folder: Path
    stamp: RecordingSettings
    prompts: tuple[RecordedPrompt, ...]
    replies: tuple[RecordedReply, ...]

    @property
    def traces(self) -> "Traces":
        """The trace of each reply, read from its file on access."""
        return Traces(self)

    def effort_curve(self) -> "pandas.DataFrame":
        """Tokens by prompt, effort and channel. `tables.py` describes all columns."""
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
        """Attention to the sink, by effort, channel, layer and head."""
        from oss_lab.record.evidence import tables

        return tables.sinks(self)


class Traces:
    """The traces of a bundle, in the order of its replies. Each access reads the file again."""

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
        wrong = f"{file} does not match its reply in {FILE}"
        if trace.tokens != (*reply.prompt_ids, *reply.ids):
            raise LabError(f"{wrong}: the tokens differ")
        if trace.origin.checkpoint != stamp.origin.checkpoint:
            raise LabError(f"{wrong}: the checkpoints differ")
        if trace.selection != Selection(POINTS):
            raise LabError(f"{wrong}: the points, layers, heads or positions differ")
        if trace["moe.expert_ids"].max() >= stamp.config["num_experts"]:
            raise LabError(f"{wrong}: it contains an expert id that the model does not have")
        return trace


def trace_name(prompt: int, effort: Effort) -> str:
    """`traces/000-low.safetensors`."""
    return f"{TRACES}/{prompt:03}-{effort}.safetensors"
