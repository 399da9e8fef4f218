"""A run: one sequence of tokens in Python, and how the model continues it.

`js/source/source.js` explains runs. A run keeps its KV cache, so a step or a fork reads only the
tokens that are new. Without changes, the tokens are those of `lab.chat` with the same settings.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oss_lab.agents.calls import CallRecord
from oss_lab.analysis.tracing import channels_by
from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import KVCache
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, render
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.lab import Lab
from oss_lab.plots.style import plural
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.calls import ROUNDS, append_outputs
from oss_lab.record.reply import Reply, ToolCall
from oss_lab.record.token import Token
from oss_lab.record.token_labels import TokenLabel, label_token_ids, token_text
from oss_widgets.sources.exchange import Exchange, list_calls, list_diagnostics, list_messages
from oss_widgets.sources.reading import extend_cache
from oss_widgets.sources.recording import RunRecording
from oss_widgets.sources.tools import RunTools

ALTERNATIVES = 5


@dataclass(frozen=True)
class Settings:
    """How a run generates: the sampling, and how many tokens a reply may have."""

    sampling: Sampling
    max_tokens: int


class Run:
    """A sequence of tokens, the reply at its end, and the means to continue it.

    Attributes:
        request: what was asked, as the views wrote it; None for a reply from elsewhere.
        ids, labels: of every token.
        generated: for each token what the model knew about it; None for a token of the prompt.
        spans: (position, interventions): which of them apply from which position on.
        parent: (id, position) of the run that it was forked from, or None.
        written: how many tokens the fork wrote there.
        tools: those that Python runs, or None.
        problem: why a call could not be run, as a sentence, or None.
    """

    def __init__(
        self,
        lab: Lab,
        id: str,
        request: Mapping[str, Any] | None,
        settings: Settings,
        interventions: tuple[Intervention, ...] = (),
    ) -> None:
        self.lab, self.id, self.request, self.settings = lab, id, request, settings
        self.interventions = interventions
        self.spans: list[tuple[int, tuple[Intervention, ...]]] = [(0, interventions)]
        self.parent: tuple[str, int] | None = None
        self.written = 0
        self.tools: RunTools | None = None
        self.problem: str | None = None
        self.ids: list[int] = []
        self.labels: list[TokenLabel] = []
        self.generated: list[Token | None] = []
        self.exchanges: list[Exchange] = []
        self.engine = lab.choose_engine([Request((), effects=self._effects())]).engine
        self.cache = KVCache(lab.config)
        self.recording = RunRecording(self)
        self._batch: Batch | None = None
        self._row: BatchRow | None = None

    # What it has

    @property
    def prompt_length(self) -> int:
        return self.exchanges[0].start

    @property
    def reply(self) -> Reply:
        """The last reply; if it is not finished, what there is of it."""
        last = self.exchanges[-1]
        return (
            last.reply
            if last.reply is not None
            else last.build_reply(self.lab.tokenizer, self.engine.name)
        )

    @property
    def replies(self) -> list[Reply]:
        """Every reply, in order; a reply that calls a tool is followed by another one."""
        earlier = [each.reply for each in self.exchanges[:-1] if each.reply is not None]
        return [*earlier, self.reply]

    @property
    def stop(self) -> str | None:
        """Why it ended; None if it is unfinished."""
        reply = self.exchanges[-1].reply
        return None if reply is None else reply.stop

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls that wait for an output, in order."""
        return tuple(self.exchanges[-1].open_calls.values())

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Every call as plain data, see `describe_call`."""
        return list_calls(self.exchanges)

    @property
    def note(self) -> str | None:
        """Why the open calls are not run, as a sentence, or None."""
        return (self.problem or self.exhausted) if self.open_calls else None

    @property
    def exhausted(self) -> str | None:
        """Why no further call is run, as a sentence; None while one may be."""
        if self.tools is None:
            return None if len(self.exchanges) < ROUNDS else f"A question gets {ROUNDS} replies."
        most, made = self.tools.agent.budget.calls, sum(len(x.records) for x in self.exchanges)
        is_left = most is None or made < most
        return None if is_left else f"The budget of {plural(most or 0, 'call')} is used up."

    @property
    def seconds(self) -> float:
        """Spent generating."""
        return sum(each.seconds for each in self.exchanges)

    @property
    def answer(self) -> str:
        """The text on the final channel."""
        return "\n".join(
            message["text"] for message in self.list_messages() if message["channel"] == "final"
        )

    def list_messages(self) -> list[dict[str, Any]]:
        return list_messages(self.exchanges)

    def list_diagnostics(self) -> list[dict[str, Any]]:
        return list_diagnostics(self.exchanges)

    # How it begins

    def begin(self, prompt: Conversation) -> None:
        """Begin an exchange; the rendered prompt replaces the tokens that differ from it."""
        rendered = render(prompt, self.lab.tokenizer)
        self._begin(ReplyBuilder(self.lab.tokenizer, prompt, tuple(rendered.tokens)))

    def _begin(self, builder: ReplyBuilder) -> None:
        ids = list(builder.prompt_tokens)
        kept = count_equal(ids, self.ids)
        self.cache.truncate(min(self.cache.length, kept))
        self.recording.truncate(kept)
        self.ids = ids
        self.labels = list(label_token_ids(self.lab.tokenizer, ids))
        self.generated = self.generated[:kept] + [None] * (len(ids) - kept)
        self.exchanges.append(Exchange(len(ids), builder, kept))
        self._batch = self._row = None

    def take_reply(self, reply: Reply) -> None:
        """Begin with a reply that was generated before, of this model or another one."""
        prompt = reply.prompt
        self._begin(ReplyBuilder(self.lab.tokenizer, prompt, reply.prompt_tokens))
        for token in reply.tokens:
            self._add(token)
        exchange = self.exchanges[-1]
        exchange.seconds, exchange.reply = reply.timing.total, reply
        self._label()

    def release(self) -> None:
        """Free the memory of a finished reply; what needs it later reads the tokens again."""
        if self.stop is not None:
            self.cache, self._batch, self._row = KVCache(self.lab.config), None, None
            self.recording.release()

    # How it is continued

    def step(self, canceled: Callable[[], bool] = lambda: False) -> bool:
        """Generate one token; whether the reply is unfinished.

        Args:
            canceled: checked between the parts of a long prompt; the next step resumes there.

        Raises:
            LabError: the prompt leaves no room for a reply.
        """
        exchange = self.exchanges[-1]
        if exchange.reply is not None:
            return False
        began = time.perf_counter()
        if self._batch is None and not self._start(canceled):
            return True
        assert self._batch is not None
        found = self._batch.step()
        exchange.seconds += time.perf_counter() - began
        for row, token in found:
            self._add(token)
            if len(self.ids) == exchange.start + 1:
                exchange.first_token = exchange.seconds
            if row.is_done or exchange.builder.is_stopped:
                self._finish()
        return exchange.reply is None

    def _start(self, canceled: Callable[[], bool]) -> bool:
        """Read what the cache does not have; False if it was canceled before the end."""
        exchange = self.exchanges[-1]
        written = len(self.ids) - exchange.start
        request = Request(
            tuple(self.ids),
            self.settings.sampling,
            frozenset(self.lab.stops),
            self.settings.max_tokens - written,
            min(ALTERNATIVES, self.lab.config.vocab_size),
            effects=self._effects(),
        )
        request.check(self.lab.config)
        for _ in extend_cache(self, self.cache, len(self.ids) - 1):
            if canceled():
                return False
        self._batch = Batch(
            self.engine, usable=self.lab.usable, channels=channels_by(self.lab.tokenizer)
        )
        (self._row,) = self._batch.add([request], self.cache)
        for _ in range(written):  # a fork draws what its parent drew at the same position
            self._row.random_stream.uniform()
        return True

    def record_call(self, place: int, record: CallRecord) -> None:
        """Keep the output of an open call; after the last one, `step` continues."""
        last = self.exchanges[-1]
        last.records[place] = record
        self.problem = None
        if last.open_calls:
            return
        outputs = iter([last.records[n].output or "" for n in sorted(last.records)])
        conversation = append_outputs(self.reply, lambda _: next(outputs))
        assert conversation is not None
        self.begin(conversation)

    def append_outputs(self, outputs: Sequence[str]) -> None:
        """Add the outputs of the open calls, in their order; `step` then continues.

        Raises:
            LabError: there are more or fewer calls than outputs.
        """
        calls = self.open_calls
        if len(outputs) != len(calls) or not all(isinstance(each, str) for each in outputs):
            raise LabError(f"expected {len(calls)} texts, one per open call, got {len(outputs)}")
        if not calls:
            raise LabError("no call waits for an output")
        waiting = self.exchanges[-1].open_calls.items()
        for (place, call), output in zip(waiting, outputs, strict=True):
            self.record_call(place, CallRecord(call, "ok", output))

    def fork(
        self,
        id: str,
        at: int,
        written: Sequence[int] = (),
        interventions: tuple[Intervention, ...] | None = None,
    ) -> "Run":
        """A run with the tokens before `at`, then `written`; interventions apply from `at - 1`.

        Raises:
            LabError: the position is not in the reply.
        """
        if not isinstance(at, int) or not self.prompt_length <= at <= len(self.ids):
            last = len(self.ids)
            raise LabError(
                f"position {at} is not in the reply; choose one from {self.prompt_length} to {last}"
            )
        applied = self.interventions if interventions is None else interventions
        child = Run(self.lab, id, self.request, self.settings, applied)
        child.parent, child.written, child.tools = (self.id, at), len(written), self.tools
        last = at - 1  # reading it again predicts the token at `at`
        child.spans = [*(each for each in self.spans if each[0] < last), (last, applied)]
        if child.engine is self.engine:
            child.cache = self.cache.fork(at=min(last, self.cache.length))
            child.recording = self.recording.fork(child, last)
        kept = [each for each in self.exchanges if each.start <= at]
        child.exchanges = kept[:-1]
        child.ids, child.labels = self.ids[: kept[-1].start], self.labels[: kept[-1].start]
        child.generated = self.generated[: kept[-1].start]
        model = kept[-1].builder
        builder = ReplyBuilder(self.lab.tokenizer, model.prompt, model.prompt_tokens)
        child.exchanges.append(Exchange(kept[-1].start, builder, kept[-1].kept))
        for token in self.generated[kept[-1].start : at]:
            child._add(token or Token(self.ids[len(child.ids)], float("nan"), forced=True))
        for each in written:
            child._add(Token(each, float("nan"), forced=True))
        if len(child.ids) > kept[-1].start and child.ids[-1] in self.lab.stops:
            child._finish()
        return child

    def _effects(self) -> tuple[Effect, ...]:
        return tuple(map(Effect, self.interventions))

    def _add(self, token: Token) -> None:
        """Append a token of the reply, labeled as far as the format is known by now."""
        builder = self.exchanges[-1].builder
        builder.add(token)
        parser, before = builder.parser, self.labels[-1] if self.labels else TokenLabel("")
        self.ids.append(token.id)
        self.generated.append(token)
        self.labels.append(
            TokenLabel(
                token_text(self.lab.tokenizer, token.id),
                before.message,
                "assistant",
                parser.channel if parser else None,
                parser.recipient if parser else None,
                "content" if parser and parser.state == "Content" else "format",
            )
        )

    def _finish(self) -> None:
        """Close the reply and label every token."""
        exchange = self.exchanges[-1]
        exchange.reply = exchange.build_reply(self.lab.tokenizer, self.engine.name)
        self._batch = self._row = None
        self._label()

    def _label(self) -> None:
        self.labels = list(label_token_ids(self.lab.tokenizer, self.ids))

    def effects_at(self, position: int) -> tuple[Effect, ...]:
        """The interventions that apply to the token at a position."""
        made = [each for begin, each in self.spans if begin <= position][-1]
        return tuple(map(Effect, made))

    @property
    def seconds_per_token(self) -> float | None:
        """As measured after the first token; None if too few were generated."""
        last = self.exchanges[-1]
        count = len(self.ids) - last.start - 1
        return (last.seconds - last.first_token) / count if count >= 4 and last.seconds else None


def count_equal(some: Sequence[int], others: Sequence[int]) -> int:
    """How many ids at the start are equal."""
    pairs = enumerate(zip(some, others, strict=False))
    shorter = min(len(some), len(others))
    return next((n for n, (a, b) in pairs if a != b), shorter)
