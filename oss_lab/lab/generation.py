"""One call that generates: from its keywords to requests, and from their tokens to replies."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oss_lab.analysis.tracing import build_trace
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import Chosen
from oss_lab.engine.request import Request
from oss_lab.engine.row import Row
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Event, render
from oss_lab.harmony.prompt import Question, shown
from oss_lab.hooks.interventions.changes import Effects
from oss_lab.hooks.selection import Integers, Selection, integers, is_integer
from oss_lab.lab.options import ASKING, MAX_TOKENS, SAMPLING, Options
from oss_lab.record.builder import ReplyBuilder, Stream, final_header
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token

if TYPE_CHECKING:
    from oss_lab.lab.workbench import Lab


class Generation:
    """The keywords of one call, and what follows from them.

    Raises:
        LabError: a keyword does not exist.
    """

    def __init__(self, lab: "Lab", options: Options) -> None:
        if unknown := options.keys() - Options.__annotations__.keys():
            raise LabError(
                f"there is no keyword {min(unknown)!r}; the keywords are"
                f" {', '.join(Options.__annotations__)}"
            )
        self.lab, self.options, self.tokenizer = lab, options, lab.tokenizer
        own = options.get("interventions", ())
        # One tuple for all rows: those with the same effects are changed together.
        self.effects = lab.effects(own)
        self.own = Effects(list(self.effects[len(self.effects) - len(own) :]))

    def ask(self, question: Question | None) -> ReplyBuilder:
        """A builder for the reply to a question."""
        given = self.options.get("continue_from")
        if isinstance(given, Reply):
            return self._resume(given, question, is_raw=False)
        if question is None:
            raise LabError("expected a question, got None")
        asking: Any = {name: value for name, value in self.options.items() if name in ASKING}
        prompt = self.lab.conversation(question, **asking)
        ids = tuple(render(prompt, self.tokenizer).tokens)
        budget = self.options.get("analysis_budget")
        builder = ReplyBuilder(self.tokenizer, prompt, ids, budget, self._stop_strings())
        if given is not None:
            if not isinstance(given, str):
                raise LabError(f"continue_from: expected a Reply or text, got {shown(given)}")
            header = final_header(self.tokenizer, inside_message=False)
            builder.give([*header, *self.tokenizer.encode_ordinary(given)])
        return builder

    def continue_text(self, text: str | None) -> ReplyBuilder:
        """A builder for what follows plain text."""
        for name in (*ASKING, "analysis_budget"):
            if self.options.get(name) not in (None, (), []):
                raise LabError(f"{name} belongs to a chat: plain text has none, use `chat`")
        given = self.options.get("continue_from")
        if isinstance(given, Reply):
            return self._resume(given, text, is_raw=True)
        if given is not None:
            raise LabError(f"continue_from: expected a Reply of `generate`, got {shown(given)}")
        if not isinstance(text, str):
            raise LabError(f"expected text to continue, got {shown(text)}")
        ids = tuple(self.tokenizer.encode_ordinary(text))
        return ReplyBuilder(self.tokenizer, None, ids, stop=self._stop_strings())

    def stream(self, builder: ReplyBuilder) -> Stream:
        """The reply of a builder as a stream; nothing is computed before it is read."""
        request = self._request(builder)
        chosen = self.lab.choose_for([request])
        rows: list[Row] = []

        def events() -> Iterator[list[Event]]:
            batch = self.lab.new_batch(chosen)
            rows.extend(batch.join([request]))
            rows[0].forced.extend(builder.take_over())  # a continued analysis may be at its budget
            for row, token in batch:
                yield take(batch, row, builder, token)

        def complete(reply: Reply) -> Reply:
            self.own.warn_of_none()
            return self._complete(reply, rows[0], chosen)

        return Stream(builder, events(), complete)

    def replies(self, builders: Sequence[ReplyBuilder], given: Integers | None) -> list[Reply]:
        """The replies of builders, generated as one batch; `given` are their draws."""
        draws = range(len(builders)) if given is None else integers("draws", given) or ()
        if len(draws) != len(builders):
            raise LabError(f"there are {len(draws)} draws for {len(builders)} questions")
        pairs = zip(builders, draws, strict=True)
        requests = [self._request(builder, draw) for builder, draw in pairs]
        if not requests:
            return []
        chosen = self.lab.choose_for(requests)
        batch = self.lab.new_batch(chosen)
        for builder in builders:
            builder.begin()
        rows = batch.join(requests)
        for row, token in batch:
            take(batch, row, builders[row.number], token)
        self.own.warn_of_none()
        finished = zip(builders, rows, strict=True)
        return [self._complete(builder.finish()[1], row, chosen) for builder, row in finished]

    def _resume(self, reply: Reply, question: object, *, is_raw: bool) -> ReplyBuilder:
        """A builder that has the tokens of a reply already.

        Raises:
            LabError: the reply is complete, or was made by the other verb.
        """
        if question is not None:
            raise LabError("give a question or continue_from a reply, not both")
        if (reply.prompt is None) != is_raw:
            verb = "generate" if reply.prompt is None else "chat"
            raise LabError(f"this reply was made by `{verb}`; continue it there")
        if reply.stop not in ("length", "text"):
            raise LabError(
                f"this reply is complete (stop {reply.stop!r}), so there is nothing to continue:"
                " ask the next question with `reply.conversation`"
            )
        for name in ASKING:
            if self.options.get(name):
                raise LabError(f"{name} is set by the continued reply; leave it out")
        budget = self.options.get("analysis_budget")
        prompt, ids, stop = reply.prompt, reply.prompt_tokens, self._stop_strings()
        builder = ReplyBuilder(self.tokenizer, prompt, ids, budget, stop)
        builder.give(reply.tokens)
        return builder

    def _request(self, builder: ReplyBuilder, draw: int = 0) -> Request:
        options = self.options
        max_tokens = options.get("max_tokens", MAX_TOKENS)
        if not is_integer(max_tokens) or max_tokens < 1:
            raise LabError(f"max_tokens is {max_tokens!r}; it must be an integer, 1 or more")
        alternatives, points = options.get("alternatives", 0), options.get("points", ())
        if not is_integer(alternatives):
            raise LabError(f"alternatives is {alternatives!r}; it must be an integer, 0 or more")
        request = Request(
            (*builder.prompt_tokens, *(token.id for token in builder.tokens)),
            sampling=self._sampling(),
            stop=frozenset(self.lab.stops),
            max_tokens=int(max_tokens),
            alternatives=int(alternatives),
            selection=Selection.of(points) if points else None,
            effects=self.effects,
            draw=draw,
        )
        request.check(self.lab.config)
        return request

    def _sampling(self) -> Sampling:
        """The prepared sampling, or the workbench's, with the fields that the call replaces."""
        sampling = self.options.get("sampling") or self.lab.sampling
        if not isinstance(sampling, Sampling):
            raise LabError(f"sampling: expected a Sampling, got {shown(sampling)}")
        given: Any = {name: value for name, value in self.options.items() if name in SAMPLING}
        return replace(sampling, **given)

    def _stop_strings(self) -> tuple[str, ...]:
        """The strings at which the answer ends."""
        given: Any = self.options.get("stop", ())
        strings = tuple(given) if isinstance(given, list | tuple) else (given,)
        if wrong := [each for each in strings if not isinstance(each, str) or not each]:
            raise LabError(f"stop: expected strings that are not empty, got {wrong[0]!r}")
        return strings

    def _complete(self, reply: Reply, row: Row, chosen: Chosen) -> Reply:
        """A reply with its engine and what was recorded."""
        trace = None
        if row.recording is not None:
            read = [*reply.prompt_tokens, *reply.ids][:-1]
            seed = row.request.sampling.seed
            trace = build_trace(row, read, chosen, self.tokenizer, self.lab.digest, seed=seed)
        return replace(reply, engine=chosen.engine.name, engine_reason=chosen.reason, trace=trace)


def take(batch: Batch, row: Row, builder: ReplyBuilder, token: Token) -> list[Event]:
    """Give a token to its builder, then force tokens or end the row as the builder decides."""
    events = builder.add(token)
    if not row.forced:
        row.forced.extend(builder.take_over())
    if builder.is_stopped:
        batch.leave(row)
    return events
