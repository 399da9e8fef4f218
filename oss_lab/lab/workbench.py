"""The workbench in one object: a model, its vocabulary, and the verbs a person types.

    lab = oss_lab.load("nano")
    reply = lab.chat("What is 347 * 62?", effort="high")
    reply.analysis, reply.final
    trace = lab.trace(reply, ["moe.expert_ids"])        # trace["moe.expert_ids"]: layer seq slot
    with lab.intervene(AblateExpert(layer=2, expert=7)) as effects:
        lab.chat("What is 347 * 62?")

Text is a question: it is rendered as a chat with the `model` layout and the `spec` policy.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast

import tiktoken
from jaxtyping import Float
from oss_kernels.backends import Backend
from torch import Tensor

from oss_lab.analysis.tracing import channels_by, plan_request, trace_requests, watch_reading
from oss_lab.checkpoint.digest import checkpoint_digest
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import KVCache
from oss_lab.engine.choice import Chosen, Engines
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request, check_tokens
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, render, stop_tokens
from oss_lab.harmony.messages import Effort
from oss_lab.harmony.prompt import Question, prompt_of, several, shown
from oss_lab.harmony.specials import ENDOFTEXT, specials
from oss_lab.harmony.tool_forms import ToolForm
from oss_lab.hooks.cost import BUDGET, Plan, check_budget
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.interventions.changes import Effect, Effects
from oss_lab.hooks.interventions.in_force import Block, in_force
from oss_lab.hooks.points import ALWAYS
from oss_lab.hooks.selection import Integers, Selection, integers, is_integer, texts
from oss_lab.lab.generation import Generation
from oss_lab.lab.options import Asking, Options, Parts
from oss_lab.lab.prompts import Prompt, ids_of, is_rendered_text
from oss_lab.model import Transformer
from oss_lab.record.builder import Stream
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token
from oss_lab.record.token_labels import on_channels, token_labels
from oss_lab.record.trace import Trace
from oss_lab.tokenizer import usable_ids

if TYPE_CHECKING:
    from oss_lab.analysis.collect import Collection as Traces
    from oss_lab.analysis.lens import Lens
    from oss_lab.analysis.patching import Metric, Patching
    from oss_lab.analysis.point_gradients import Goal, Gradients


class Lab:
    """A loaded model and its vocabulary.

    Attributes:
        model: the weights, as the readable model; `lab.model(ids)` is a differentiable forward.
        tokenizer: tiktoken's Encoding. config: the model's sizes.
        sampling, effort: used where a call gives none.
        stops: ids that end a turn. usable: ids that may be generated [vocab].
        checkpoint: the files that the model was read from, None if it was not.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: tiktoken.Encoding,
        sampling: Sampling = GREEDY,
        effort: Effort = "medium",
        checkpoint: Checkpoint | None = None,
        *,
        kernels: Backend | None = None,
        is_auto: bool = False,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.config = model.config
        self.checkpoint = checkpoint
        self.engines = Engines(model, kernels, is_auto=is_auto)
        self.sampling = sampling
        self.effort: Effort = effort
        if tokenizer.n_vocab > self.config.vocab_size:
            raise LabError(
                f"vocabulary {tokenizer.name!r} has {tokenizer.n_vocab} ids, the model only"
                f" {self.config.vocab_size}; they do not belong together"
            )
        self.stops = stop_tokens(tokenizer, for_sampling=True) | {
            specials(tokenizer).ids[ENDOFTEXT]
        }
        self.usable = usable_ids(tokenizer, self.config.vocab_size)

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 that identifies the checkpoint; read from its files when first used."""
        return None if self.checkpoint is None else checkpoint_digest(self.checkpoint)

    # Generation

    def chat(self, question: Question | None = None, **options: Unpack[Options]) -> Reply:
        """The reply to a question or a conversation; keywords as in `Options`."""
        return self.stream(question, **options).read()

    def stream(self, question: Question | None = None, **options: Unpack[Options]) -> Stream:
        """A reply as a stream of Harmony events; keywords as in `Options`.

        The interventions in force now apply to the whole reply.
        """
        generation = Generation(self, options)
        return generation.stream(generation.ask(question))

    def chat_batch(
        self,
        questions: Sequence[Question],
        draws: Integers | None = None,
        **options: Unpack[Options],
    ) -> list[Reply]:
        """One reply per question, generated as one ragged batch; keywords as in `Options`.

        Args:
            draws: which of the seed's streams of random numbers each row uses; 0, 1, ... by
                default. A reply does not depend on the other rows.
        """
        generation = Generation(self, options)
        builders = [generation.ask(each) for each in several(questions, "chat")]
        return generation.replies(builders, draws)

    def generate(self, text: str | None = None, **options: Unpack[Options]) -> Reply:
        """Continue plain text without Harmony, up to a stop token; keywords as in `Options`.

        The reply has text, ids, logprobs and trace; its channels are None.
        """
        return self.stream_text(text, **options).read()

    def stream_text(self, text: str | None = None, **options: Unpack[Options]) -> Stream:
        """As `generate`, as a stream of the text's pieces."""
        generation = Generation(self, options)
        return generation.stream(generation.continue_text(text))

    def write_turns(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
        alternatives: int = 0,
        cache: KVCache | None = None,
        engine: Engine | None = None,
    ) -> Iterator[tuple[int, Token]]:
        """(row, token) of what the model writes after these ids, each row to the end of its turn.

        Args:
            cache: of one row, with the first tokens of the only sequence; it is extended.
            engine: that computed the cache.
        """
        effects = self.effects()
        requests = [
            Request(tuple(ids), sampling, frozenset(self.stops), max_tokens, alternatives,
                    effects=effects, draw=n)
            for n, ids in enumerate(sequences)
        ]  # fmt: skip
        batch = self.new_batch(self.choose_for(requests) if engine is None else Chosen(engine))
        batch.join(requests, cache)
        return ((row.number, token) for row, token in batch)

    # What happens inside

    def trace(
        self,
        of: Prompt,
        points: Sequence[str] = ALWAYS,
        *,
        layers: Integers | None = None,
        heads: Integers | None = None,
        positions: Integers | None = None,
        channels: Collection[str] | None = None,
        interventions: Sequence[Intervention] = (),
        budget: int = BUDGET,
        **asking: Unpack[Asking],
    ) -> Trace:
        """What the model computes at these points over a prompt and its reply, or any tokens.

        Args:
            of: a reply (with its prompt), a question, a conversation, or token ids.
            points: names of `oss_lab.hooks.points.POINTS`; by default the cheap ones.
            channels: keep the tokens of messages on these channels only.
            budget: bytes that the trace may hold.

        Raises:
            LabError: something named does not exist, or the trace would not fit.
        """
        parts: Parts = {
            "layers": layers, "heads": heads, "positions": positions, "channels": channels
        }  # fmt: skip
        tokens = self.tokens_of(of, **asking)
        effects = self.effects(interventions)
        request = self._reading(tokens, points, parts, effects)
        self._check_budget([request], budget)
        (trace,) = trace_requests(
            self.choose_for([request]), self.tokenizer, [request], self.digest
        )
        warn_of_none(effects, interventions)
        return trace

    def trace_batch(
        self,
        of: Sequence[Prompt],
        points: Sequence[str] = ALWAYS,
        *,
        layers: Integers | None = None,
        heads: Integers | None = None,
        interventions: Sequence[Intervention] = (),
        budget: int = BUDGET,
        **asking: Unpack[Asking],
    ) -> list[Trace]:
        """The trace of each, computed as one ragged batch; arguments as in `trace`.

        The budget is that of all traces together.
        """
        parts: Parts = {"layers": layers, "heads": heads}
        effects = self.effects(interventions)
        requests = [
            self._reading(self.tokens_of(each, **asking), points, parts, effects)
            for each in several(of, "trace")
        ]
        if not requests:
            return []
        self._check_budget(requests, budget)
        chosen = self.choose_for(requests)
        traces = trace_requests(chosen, self.tokenizer, requests, self.digest)
        warn_of_none(effects, interventions)
        return traces

    def plan(
        self,
        of: Prompt,
        points: Sequence[str] = ALWAYS,
        *,
        layers: Integers | None = None,
        heads: Integers | None = None,
        positions: Integers | None = None,
        channels: Collection[str] | None = None,
        **asking: Unpack[Asking],
    ) -> Plan:
        """What that trace would cost in bytes and seconds; arguments as in `trace`."""
        parts: Parts = {
            "layers": layers, "heads": heads, "positions": positions, "channels": channels
        }  # fmt: skip
        tokens = self.tokens_of(of, **asking)
        request = self._reading(tokens, points, parts, self.effects())
        return plan_request(self.choose_for([request]), request)

    def logits(
        self,
        of: Prompt,
        last: int | None = None,
        *,
        interventions: Sequence[Intervention] = (),
        **asking: Unpack[Asking],
    ) -> Float[Tensor, "kept vocab"]:
        """float32 logits of the last `last` positions (None: all); `of` as in `trace`."""
        return self.logits_batch([of], last, interventions=interventions, **asking)[0]

    def logits_batch(
        self,
        of: Sequence[Prompt],
        last: int | None = None,
        *,
        interventions: Sequence[Intervention] = (),
        **asking: Unpack[Asking],
    ) -> list[Float[Tensor, "kept vocab"]]:
        """The logits of each, computed as one ragged batch."""
        if last is not None and (not is_integer(last) or last < 1):
            raise LabError(f"last is {last!r}; it must be an integer, 1 or more")
        effects = self.effects(interventions)
        requests = [
            Request(tuple(self.tokens_of(each, **asking)), effects=effects)
            for each in several(of, "logits")
        ]
        if not requests:
            return []
        chosen = self.choose_for(requests)
        channels = channels_by(self.tokenizer)
        found = read_logits(chosen.engine, requests, last, channels, watch_reading)
        warn_of_none(effects, interventions)
        return found

    def collect(
        self, prompts: Sequence[Prompt], points: Sequence[str], out: str | Path, **options: Any
    ) -> "Traces":
        """Trace every prompt of a corpus into a folder; resumes an interrupted run. Keywords as in
        `oss_lab.analysis.collect.collect`."""
        from oss_lab.analysis.collect import collect

        return collect(self, prompts, points, out, **options)

    def lens(
        self,
        of: Prompt,
        positions: Integers | None = None,
        target: int | None = None,
        *,
        top: int = 5,
        **asking: Unpack[Asking],
    ) -> "Lens":
        """What each layer would predict if it were the last; see `oss_lab/analysis/lens.py`."""
        from oss_lab.analysis.lens import lens

        chosen = integers("positions", positions)
        return lens(self, self.tokens_of(of, **asking), chosen, target, top=top)

    def patch(
        self,
        clean: Prompt,
        corrupted: Prompt,
        metric: "Metric | None" = None,
        *,
        point: str = "resid.pre",
        by: Literal["position", "head"] = "position",
        target: int | None = None,
        against: int | None = None,
        **asking: Unpack[Asking],
    ) -> "Patching":
        """Put values of the clean run into the corrupted one, one layer and position at a time.

        Args:
            metric: another score of the last logits [vocab], beside the log-probability of the
                target and the difference of the two logits.
            by: "head" patches what one head gathered, at all positions.
        """
        from oss_lab.analysis.patching import patch_heads, patch_positions

        ends = self.tokens_of(clean, **asking), self.tokens_of(corrupted, **asking)
        if by == "head":
            return patch_heads(self, *ends, target=target, against=against, metric=metric)
        if by != "position":
            raise LabError(f"by is {by!r}; use 'position' or 'head'")
        return patch_positions(self, *ends, point, target=target, against=against, metric=metric)

    def gradients(
        self,
        of: Prompt,
        target: "Goal",
        points: Sequence[str] = ("embed",),
        *,
        layers: Integers | None = None,
        **asking: Unpack[Asking],
    ) -> "Gradients":
        """d target / d point, labeled like a trace.

        The target is a token id (its logit after the last token), a pair of ids (the difference of
        their logits) or a function of the logits [seq vocab].
        """
        from oss_lab.analysis.point_gradients import gradients

        return gradients(self, self.tokens_of(of, **asking), target, points, layers)

    def intervene(self, *interventions: Intervention) -> AbstractContextManager[Effects]:
        """Change what is computed inside, in every request created within the `with` block.

            with lab.intervene(AblateHead(layer=0, head=3)) as effects:
                reply = lab.chat("What is 3 * 4?")

        A request keeps the interventions that were in force when it was created, the outermost
        block's first. Other threads are not affected. The effects are counted as the block
        runs; closing it warns of an intervention that changed nothing.

        Raises:
            LabError: the model has no such layer, head, expert or slot.
        """
        return Block(self, Effects.of(self._checked(interventions)))

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Those in force now, in order."""
        return tuple(effect.of_what for effect in in_force(self))

    def _checked(self, interventions: Sequence[Intervention]) -> Sequence[Intervention]:
        if isinstance(interventions, Intervention) or not isinstance(interventions, Sequence):
            raise LabError(
                f"interventions: expected a list of interventions, got {shown(interventions)}"
            )
        for each in interventions:
            if not isinstance(each, Intervention):
                raise LabError(
                    "expected an intervention such as `AblateHead(layer=0, head=3)`, got"
                    f" {shown(each)}"
                )
            each.check(self.config)
        return interventions

    def effects(self, interventions: Sequence[Intervention] = ()) -> tuple[Effect, ...]:
        """Those in force, then those of the call."""
        return (*in_force(self), *map(Effect, self._checked(interventions)))

    def tokens_of(self, of: Prompt, **asking: Unpack[Asking]) -> list[int]:
        """The ids of a reply with its prompt, of a question or conversation as `chat` renders it,
        of raw text, or of token ids [n] or [1, n] of any library.

        Raises:
            LabError: there are no tokens, too many, or one that the model does not have.
        """
        others: Any = dict(asking)
        if unknown := others.keys() - Asking.__annotations__.keys():
            raise LabError(f"there is no keyword {min(unknown)!r} here")
        is_raw = others.pop("raw", False)
        if isinstance(of, Reply):
            tokens = [*of.prompt_tokens, *of.ids]
        elif is_raw:
            if not isinstance(of, str):
                raise LabError(f"raw=True takes text, got {shown(of)}")
            tokens = self.tokenizer.encode_ordinary(of)
        elif is_rendered_text(of):
            tokens = render(self.conversation(cast(Question, of), **others), self.tokenizer).tokens
        else:
            tokens = ids_of(of)
        has_settings = is_rendered_text(of) and not is_raw
        if idle := [name for name, value in others.items() if value and not has_settings]:
            raise LabError(f"{idle[0]} does nothing here: it is for text and messages")
        check_tokens(tokens, self.config)
        return tokens

    def conversation(
        self,
        question: Question,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolForm] = (),
        date: str | None = None,
    ) -> Conversation:
        """The conversation that `chat` renders for a question; see `harmony.prompt.prompt_of`."""
        return prompt_of(
            question,
            effort=effort,
            default_effort=self.effort,
            instructions=instructions,
            tools=tools,
            date=date,
        )

    def choose_for(self, requests: Sequence[Request]) -> Chosen:
        """One engine for all of them."""
        reads = frozenset(name for each in requests for name in each.reads)
        writes = frozenset(name for each in requests for name in each.writes)
        return self.engines.choose(reads, writes)

    def new_batch(self, chosen: Chosen) -> Batch:
        """An empty batch on the chosen engine."""
        channels = channels_by(self.tokenizer)
        return Batch(chosen.engine, usable=self.usable, channels=channels, watch=watch_reading)

    def _reading(
        self,
        tokens: Sequence[int],
        points: Sequence[str],
        parts: Parts,
        effects: tuple[Effect, ...],
    ) -> Request:
        """The request of a trace."""
        positions, channels = parts.get("positions"), parts.get("channels")
        if channels is not None:
            if positions is not None:
                raise LabError("give positions or channels, not both")
            names = [channels] if isinstance(channels, str) else texts("channels", channels)
            if not names:
                raise LabError("channels is empty; leave it out for all of them")
            positions = on_channels(token_labels(self.tokenizer, tokens), names)
        selection = Selection.of(points, parts.get("layers"), parts.get("heads"), positions)
        selection.check(self.config, len(tokens))
        return Request(tuple(tokens), selection=selection, effects=effects)

    def _check_budget(self, requests: Sequence[Request], budget: int) -> None:
        """Raise LabError if these traces, of one selection, would take more bytes."""
        selection = requests[0].selection
        assert selection is not None
        check_budget(self.model, selection, [len(each.tokens) for each in requests], budget)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<Lab {self._name}: {config.num_hidden_layers} layers, {config.num_experts} experts"
            f" ({config.experts_per_token} active), {self.tokenizer.name} vocabulary,"
            f" {str(self.model.embedding.weight.dtype).removeprefix('torch.')} on"
            f" {self.model.device}, {self.engines.main.name} engine>"
        )

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"

    @property
    def _name(self) -> str:
        return "model" if self.checkpoint is None else self.checkpoint.folder.name


def warn_of_none(effects: Sequence[Effect], own: Sequence[Intervention]) -> None:
    """Warn of each of a call's own interventions, the last ones, that changed nothing."""
    Effects(list(effects[len(effects) - len(own) :])).warn_of_none()
