"""One call that generates: turns its keywords into requests and their tokens into replies."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oss_lab.analysis.tracing import build_trace
from oss_lab.course.slow_parts import Stopwatch
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import EngineChoice
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError, explain_unknown
from oss_lab.grammar import ReplyConstraint, build_constraint
from oss_lab.harmony import Conversation, Event
from oss_lab.harmony.notices import warn
from oss_lab.harmony.prompt import Question, shorten_repr
from oss_lab.hooks.interventions.changes import Effects
from oss_lab.hooks.selection import Integers, Selection, is_integer, to_integers, to_names
from oss_lab.lab.options import MAX_TOKENS, PROMPT_KEYWORDS, SAMPLING_KEYWORDS, Options
from oss_lab.record.builder import ReplyBuilder, Stream, final_header
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token
from oss_lab.tokenizer import encode_text

if TYPE_CHECKING:
    from oss_lab.lab.workbench import Lab


class Generation:
    """The keywords of one call, with the methods that build its requests and replies.

    Raises:
        LabError: a keyword does not exist.
    """

    def __init__(self, lab: "Lab", options: Options) -> None:
        if unknown := options.keys() - Options.__annotations__.keys():
            raise LabError(explain_unknown("keyword", min(unknown), Options.__annotations__))
        self.lab, self.options, self.tokenizer = lab, options, lab.tokenizer
        own = options.get("interventions", ())
        # All rows share this tuple: rows with the same effects are changed together.
        self.effects = lab.collect_effects(own)
        self.own_effects = Effects(list(self.effects[len(self.effects) - len(own) :]))
        self.slow = Stopwatch(lab.parts)
        self.slow.start()

    def build_chat(self, question: Question | None) -> ReplyBuilder:
        """Build the prompt of a question, and return the builder of its reply."""
        given = self.options.get("continue_from")
        if isinstance(given, Reply):
            return self._resume(given, question, is_raw=False)
        if question is None:
            raise LabError("expected a question, got None")
        if self.options.get("ignore_stops"):
            raise LabError("ignore_stops has no effect on a chat: use `generate`, or leave it out")
        asking: Any = {
            name: value for name, value in self.options.items() if name in PROMPT_KEYWORDS
        }
        prompt = self.lab.conversation(question, **asking)
        ids, warnings = self.lab.render(prompt)
        warn(warnings)
        builder = self._new_builder(prompt, ids)
        builder.warnings = warnings
        if given is not None:
            if not isinstance(given, str):
                raise LabError(
                    f"continue_from: expected a Reply or text, got {shorten_repr(given)}"
                )
            header = final_header(self.tokenizer, inside_message=False)
            builder.start_with([*header, *encode_text(self.tokenizer, given)])
        return builder

    def build_raw(self, text: str | None) -> ReplyBuilder:
        """Return the builder of a reply that continues plain text."""
        for name in (*PROMPT_KEYWORDS, "analysis_budget"):
            if self.options.get(name) not in (None, (), []):
                raise LabError(f"{name} has no effect on plain text: use `chat`, or leave it out")
        if self.options.get("well_formed"):
            raise LabError("well_formed has no effect on plain text: use `chat`, or leave it out")
        given = self.options.get("continue_from")
        if isinstance(given, Reply):
            return self._resume(given, text, is_raw=True)
        if given is not None:
            raise LabError(
                f"continue_from: expected a Reply from `generate`, got {shorten_repr(given)}"
            )
        if not isinstance(text, str):
            raise LabError(f"expected text to continue, got {shorten_repr(text)}")
        builder = self._new_builder(None, encode_text(self.tokenizer, text))
        builder.ignore_stops = bool(self.options.get("ignore_stops"))
        return builder

    def stream(self, builder: ReplyBuilder) -> Stream:
        """Return the reply as a stream; nothing is computed before the stream is read."""
        request = self.build_request(builder)
        chosen = self.lab.choose_engine([request])
        rows: list[BatchRow] = []
        self.slow.stop()

        def events() -> Iterator[list[Event]]:
            batch = self.lab.new_batch(chosen)
            self.slow.start()
            rows.extend(batch.add([request]))
            # A continued analysis may already have used up its budget.
            force_next(rows[0], builder)
            for row, token in batch:
                yield feed(batch, row, builder, token)

        def complete(reply: Reply) -> Reply:
            self.slow.stop()
            self.own_effects.warn_if_unchanged()
            self.slow.warn_if_slow()
            return self.complete(reply, rows[0], chosen)

        return Stream(builder, events(), complete)

    def generate_replies(
        self, builders: Sequence[ReplyBuilder], given: Integers | None
    ) -> list[Reply]:
        """Generate the replies of these builders as one batch; `given` are the rows' draws."""
        draws = range(len(builders)) if given is None else to_integers("draws", given) or ()
        if len(draws) != len(builders):
            raise LabError(f"expected {len(builders)} draws, one per question, got {len(draws)}")
        pairs = zip(builders, draws, strict=True)
        requests = [self.build_request(builder, draw) for builder, draw in pairs]
        if not requests:
            return []
        chosen = self.lab.choose_engine(requests)
        batch = self.lab.new_batch(chosen)
        for builder in builders:
            builder.start_clock()
        rows = batch.add(requests)
        for row, token in batch:
            feed(batch, row, builders[row.number], token)
        finished = [builder.finish()[1] for builder in builders]
        self.slow.stop()
        self.own_effects.warn_if_unchanged()
        self.slow.warn_if_slow()
        pairs = zip(finished, rows, strict=True)
        return [self.complete(reply, row, chosen) for reply, row in pairs]

    def _resume(self, reply: Reply, question: object, *, is_raw: bool) -> ReplyBuilder:
        """Return a builder that starts with the tokens of an unfinished reply.

        Raises:
            LabError: the reply is complete, or comes from the other method.
        """
        if question is not None:
            raise LabError("expected a question or continue_from, not both")
        if (reply.prompt is None) != is_raw:
            verb = "generate" if reply.prompt is None else "chat"
            raise LabError(f"this reply comes from `{verb}`; continue it with `{verb}`")
        if reply.stop not in ("length", "text"):
            raise LabError(
                f"this reply is complete (stop {reply.stop!r}) and cannot be continued; to ask"
                " another question, extend `reply.conversation`"
            )
        for name in PROMPT_KEYWORDS:
            if self.options.get(name) and name != "response_format":
                raise LabError(f"{name} comes from the continued reply; leave it out")
        builder = self._new_builder(reply.prompt, reply.prompt_tokens)
        builder.warnings = reply.warnings
        builder.start_with(reply.tokens)
        return builder

    def _new_builder(self, prompt: Conversation | None, ids: Sequence[int]) -> ReplyBuilder:
        return ReplyBuilder(
            self.tokenizer,
            prompt,
            tuple(ids),
            self.options.get("analysis_budget"),
            self._read_stop_strings(),
            parse=self.lab.parts.get("parse"),
        )

    def build_request(self, builder: ReplyBuilder, draw: int = 0) -> Request:
        """The request that continues the prompt of a builder; `draw` is its random stream.

        Raises:
            LabError: a keyword has a value that this model does not allow.
        """
        options = self.options
        max_tokens = options.get("max_tokens", MAX_TOKENS)
        if not is_integer(max_tokens) or max_tokens < 1:
            raise LabError(f"max_tokens is {max_tokens!r}; it must be an integer, 1 or more")
        alternatives, points = options.get("alternatives", 0), options.get("points")
        names = () if points is None else to_names("points", points)
        if not is_integer(alternatives):
            raise LabError(f"alternatives is {alternatives!r}; it must be an integer, 0 or more")
        request = Request(
            (*builder.prompt_tokens, *(token.id for token in builder.tokens)),
            sampling=self._build_sampling(),
            stop=frozenset() if builder.ignore_stops else frozenset(self.lab.stops),
            max_tokens=int(max_tokens),
            alternatives=int(alternatives),
            selection=Selection.of(names) if names else None,
            effects=self.effects,
            stream_number=draw,
            constraint=self._build_constraint(builder),
        )
        request.check(self.lab.config)
        return request

    def _build_constraint(self, builder: ReplyBuilder) -> ReplyConstraint | None:
        """The constraint of a reply, after the tokens that it starts with."""
        given, well_formed = self.options.get("response_format"), self.options.get("well_formed")
        if well_formed not in (None, True, False):
            raise LabError(f"well_formed is {shorten_repr(well_formed)}; it must be True or False")
        if builder.prompt is None or (given is None and not well_formed):
            return None
        size = self.lab.config.vocab_size
        constraint = build_constraint(self.tokenizer, builder.prompt, given, size=size)
        try:
            for token in builder.tokens:
                constraint.accept(token.id)
        except LabError as error:
            raise LabError(f"continue_from: {error}; leave out what does not fit") from None
        return constraint

    def _build_sampling(self) -> Sampling:
        """The given Sampling or the lab's, with the fields that the call replaces."""
        sampling = self.options.get("sampling")
        sampling = self.lab.sampling if sampling is None else sampling
        if not isinstance(sampling, Sampling):
            raise LabError(f"sampling: expected a Sampling, got {shorten_repr(sampling)}")
        given: Any = {
            name: value for name, value in self.options.items() if name in SAMPLING_KEYWORDS
        }
        return replace(sampling, **given)

    def _read_stop_strings(self) -> tuple[str, ...]:
        """The strings that end the answer."""
        given: Any = self.options.get("stop", ())
        strings = tuple(given) if isinstance(given, list | tuple) else (given,)
        if wrong := [each for each in strings if not isinstance(each, str) or not each]:
            raise LabError(f"stop: expected non-empty strings, got {wrong[0]!r}")
        return strings

    def complete(self, reply: Reply, row: BatchRow, chosen: EngineChoice) -> Reply:
        """Add the engine and the recorded trace to a reply."""
        trace = None
        if row.recording is not None:
            read = [*reply.prompt_tokens, *reply.ids][:-1]
            seed = row.request.sampling.seed
            trace = build_trace(row, read, chosen, self.tokenizer, self.lab.digest, seed=seed)
        return replace(
            reply,
            engine=chosen.engine.name,
            engine_reason=chosen.reason,
            trace=trace,
            parts=chosen.engine.parts,
        )


def feed(batch: Batch, row: BatchRow, builder: ReplyBuilder, token: Token) -> list[Event]:
    """Give a token to its builder, which may force the next tokens or end the row."""
    events = builder.add(token)
    force_next(row, builder)
    if builder.is_stopped:
        batch.remove(row)
    return events


def force_next(row: BatchRow, builder: ReplyBuilder) -> None:
    """Force the tokens that the builder wants next, if any.

    With a constraint they wait until the first is allowed: a character may not be complete yet.
    """
    ids = [] if row.forced else builder.next_forced_ids()
    if ids and row.allows(ids[0]):
        row.forced.extend(ids)
