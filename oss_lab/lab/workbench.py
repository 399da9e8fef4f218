"""`Lab`: a model and its vocabulary in one object, with everything you can do with them.

    lab = oss_lab.load("nano")
    reply = lab.chat("What is 347 * 62?", effort="high")
    reply.analysis, reply.final
    trace = lab.trace(reply, ["moe.expert_ids"])        # trace["moe.expert_ids"]: layer seq slot
    with lab.intervene(AblateExpert(layer=2, expert=7)) as effects:
        lab.chat("What is 347 * 62?")

Text is a question: it is rendered as a chat, with the `model` layout and the `spec` policy.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from oss_lab.course.byte_pairs import MergingEncoding
from oss_lab.course.learner import LearnerPart, build_parts, check_functions
from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import KVCache
from oss_lab.engine.choice import EngineChoice, Engines
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import read_logits
from oss_lab.engine.request import Request, check_tokens
from oss_lab.engine.sampler import sample
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError, explain_unknown
from oss_lab.grammar.response_format import ResponseForm, find_response_format
from oss_lab.harmony import Conversation, render, stop_tokens
from oss_lab.harmony.chat_parts import render_prompt
from oss_lab.harmony.messages import Effort
from oss_lab.harmony.notices import warn
from oss_lab.harmony.prompt import (
    Question,
    add_response_format,
    build_prompt,
    require_prompts,
    shorten_repr,
)
from oss_lab.harmony.specials import ENDOFTEXT, find_special_tokens
from oss_lab.harmony.tool_forms import ToolForm
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.cost import BUDGET, TracePlan, check_budget
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.interventions.active import InterventionBlock, find_active_effects
from oss_lab.hooks.interventions.changes import Effect, Effects
from oss_lab.hooks.points import ALWAYS
from oss_lab.hooks.selection import Integers, Selection, is_integer, to_integers, to_names
from oss_lab.lab.generation import Generation
from oss_lab.lab.options import Options, PartOptions, PromptOptions
from oss_lab.lab.prompts import Prompt, is_rendered_text, list_ids
from oss_lab.model import Transformer
from oss_lab.record.builder import Stream
from oss_lab.record.reply import Reply
from oss_lab.record.token import Token
from oss_lab.record.token_labels import find_channel_tokens, label_token_ids
from oss_lab.record.trace import Trace
from oss_lab.tokenizer import encode_text, mask_usable_ids

if TYPE_CHECKING:
    from oss_lab.analysis.collect import Collection as Traces
    from oss_lab.analysis.lens import Lens
    from oss_lab.analysis.patching import Metric, Patching
    from oss_lab.analysis.point_gradients import Goal, Gradients


class Lab:
    """A loaded model and its vocabulary, and the methods to run and study it.

    Attributes:
        model: the reference model; `lab.model(ids)` is a differentiable forward pass.
        tokenizer: a tiktoken Encoding.
        config: the ModelConfig.
        sampling, effort: the defaults of every call.
        stops: ids that end a turn.
        usable: mask of the ids that may be generated [vocab].
        checkpoint: the checkpoint that the model was loaded from, or None.
        parts: the functions that replace parts of the lab, by name; see `with_parts`.
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
        parts: Mapping[str, LearnerPart] | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.parts = dict(parts or {})
        self.config = model.config
        self.checkpoint = checkpoint
        self.engines = Engines(model, kernels, is_auto=is_auto, parts=tuple(self.parts))
        self.sampling = sampling
        self.effort: Effort = effort
        if tokenizer.n_vocab > self.config.vocab_size:
            raise LabError(
                f"vocabulary {tokenizer.name!r} has {tokenizer.n_vocab} ids, but the model has only"
                f" {self.config.vocab_size}; use the vocabulary that the model was trained with"
            )
        self.stops = stop_tokens(tokenizer, for_sampling=True) | {
            find_special_tokens(tokenizer).ids[ENDOFTEXT]
        }
        self.usable = mask_usable_ids(tokenizer, self.config.vocab_size)

    @cached_property
    def digest(self) -> str | None:
        """A SHA-256 that identifies the checkpoint, computed from its files when first used."""
        return None if self.checkpoint is None else checkpoint_digest(self.checkpoint)

    def with_parts(self, **functions: Callable[..., Any]) -> "Lab":
        """A new lab that runs on your functions, over the same weights.

            def my_norm(x, scale, eps):
                return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * scale

            mine = lab.with_parts(rms_norm=my_norm)
            mine.chat("What is 347 * 62?")

        The table in `help(oss_lab.course.parts)` has the name and signature of every part. This lab
        does not change. The new lab runs the reference model, and keeps the parts of this one.
        Events of a stream, labels of tokens and the budget of the analysis use the library's
        parser, whatever the part parse does.

        Raises:
            LabError: there is no such part, or the function takes other arguments.
        """
        new = check_functions(functions)
        parts, tokenizer = self.parts | new, self.tokenizer
        if "merge" in new:
            tokenizer = MergingEncoding(tokenizer, new["merge"])
        return Lab(
            self.model.with_parts(build_parts(parts)), tokenizer, self.sampling, self.effort,
            self.checkpoint, kernels=self.engines.requested, is_auto=self.engines.is_auto,
            parts=parts,
        )  # fmt: skip

    # Generation

    def chat(self, question: Question | None = None, **options: Unpack[Options]) -> Reply:
        """Reply to a question or a conversation; keywords as in `Options`."""
        return self.stream(question, **options).read()

    def stream(self, question: Question | None = None, **options: Unpack[Options]) -> Stream:
        """Reply as a stream of Harmony events; keywords as in `Options`.

        The interventions that are active at this call apply to the whole reply.
        """
        generation = Generation(self, options)
        return generation.stream(generation.build_chat(question))

    def chat_batch(
        self,
        questions: Sequence[Question],
        draws: Integers | None = None,
        **options: Unpack[Options],
    ) -> list[Reply]:
        """Reply to several questions as one ragged batch; keywords as in `Options`.

        Args:
            draws: the number of each row's random stream under the seed; by default 0, 1, ....
                A reply does not depend on the other rows.
        """
        generation = Generation(self, options)
        builders = [generation.build_chat(each) for each in require_prompts(questions, "chat")]
        return generation.generate_replies(builders, draws)

    def generate(self, text: str | None = None, **options: Unpack[Options]) -> Reply:
        """Continue plain text without Harmony, up to a stop token; keywords as in `Options`.

        The reply has text, ids, logprobs and trace; its channels are None.
        """
        return self.stream_text(text, **options).read()

    def stream_text(self, text: str | None = None, **options: Unpack[Options]) -> Stream:
        """Like `generate`, as a stream of pieces of text."""
        generation = Generation(self, options)
        return generation.stream(generation.build_raw(text))

    @check_arguments
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
        """Continue token ids; yields (row, token) until each row reaches the end of its turn.

        Args:
            cache: KV cache with the first tokens of a single sequence; it is extended.
            engine: the engine that computed the cache.
        """
        effects = self.collect_effects()
        requests = [
            Request(tuple(list_ids(ids)), sampling, frozenset(self.stops), max_tokens, alternatives,
                    effects=effects, stream_number=n)
            for n, ids in enumerate(sequences)
        ]  # fmt: skip
        batch = self.new_batch(
            self.choose_engine(requests) if engine is None else EngineChoice(engine)
        )
        batch.add(requests, cache)
        return ((row.number, token) for row, token in batch)

    # What happens inside

    @check_arguments
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
        budget: float = BUDGET,
        **asking: Unpack[PromptOptions],
    ) -> Trace:
        """Record what the model computes at hook points, over a reply, a prompt or any tokens.

        Args:
            of: a reply (with its prompt), a question, a conversation, or token ids.
            points: names in `oss_lab.hooks.points.POINTS`; by default the cheap ones.
            layers, heads, positions: which of them to record; by default all.
            channels: record only the tokens of messages on these channels.
            budget: maximum size of the trace in bytes.

        Raises:
            LabError: a point, layer, head or position does not exist, or the trace is too large.
        """
        parts: PartOptions = {
            "layers": layers, "heads": heads, "positions": positions, "channels": channels
        }  # fmt: skip
        tokens = self.tokens_of(of, **asking)
        effects = self.collect_effects(interventions)
        request = self._build_trace_request(tokens, points, parts, effects)
        self._check_budget([request], budget)
        (trace,) = trace_requests(
            self.choose_engine([request]), self.tokenizer, [request], self.digest
        )
        warn_if_unused(effects, interventions)
        return trace

    @check_arguments
    def trace_batch(
        self,
        of: Iterable[Prompt],
        points: Sequence[str] = ALWAYS,
        *,
        layers: Integers | None = None,
        heads: Integers | None = None,
        interventions: Sequence[Intervention] = (),
        budget: float = BUDGET,
        **asking: Unpack[PromptOptions],
    ) -> list[Trace]:
        """Record one trace per prompt as one ragged batch; arguments as in `trace`.

        The budget is the total for all traces.
        """
        parts: PartOptions = {"layers": layers, "heads": heads}
        effects = self.collect_effects(interventions)
        requests = [
            self._build_trace_request(self.tokens_of(each, **asking), points, parts, effects)
            for each in require_prompts(of, "trace")
        ]
        if not requests:
            return []
        self._check_budget(requests, budget)
        chosen = self.choose_engine(requests)
        traces = trace_requests(chosen, self.tokenizer, requests, self.digest)
        warn_if_unused(effects, interventions)
        return traces

    @check_arguments
    def plan(
        self,
        of: Prompt,
        points: Sequence[str] = ALWAYS,
        *,
        layers: Integers | None = None,
        heads: Integers | None = None,
        positions: Integers | None = None,
        channels: Collection[str] | None = None,
        **asking: Unpack[PromptOptions],
    ) -> TracePlan:
        """Estimate the bytes and seconds of a trace; arguments as in `trace`."""
        parts: PartOptions = {
            "layers": layers, "heads": heads, "positions": positions, "channels": channels
        }  # fmt: skip
        tokens = self.tokens_of(of, **asking)
        request = self._build_trace_request(tokens, points, parts, self.collect_effects())
        return plan_request(self.choose_engine([request]), request)

    @check_arguments
    def logits(
        self,
        of: Prompt,
        last: int | None = None,
        *,
        interventions: Sequence[Intervention] = (),
        **asking: Unpack[PromptOptions],
    ) -> Float[Tensor, "kept vocab"]:
        """Compute float32 logits of the last `last` positions (None: all); `of` as in `trace`."""
        return self.logits_batch([of], last, interventions=interventions, **asking)[0]

    @check_arguments
    def logits_batch(
        self,
        of: Iterable[Prompt],
        last: int | None = None,
        *,
        interventions: Sequence[Intervention] = (),
        **asking: Unpack[PromptOptions],
    ) -> list[Float[Tensor, "kept vocab"]]:
        """Compute the logits of several prompts as one ragged batch; arguments as in `logits`."""
        if last is not None and (not is_integer(last) or last < 1):
            raise LabError(f"last is {last!r}; it must be an integer, 1 or more")
        last = None if last is None else int(last)
        effects = self.collect_effects(interventions)
        requests = [
            Request(tuple(self.tokens_of(each, **asking)), effects=effects)
            for each in require_prompts(of, "logits")
        ]
        if not requests:
            return []
        chosen = self.choose_engine(requests)
        channels = channels_by(self.tokenizer)
        logits = read_logits(chosen.engine, requests, last, channels, watch_reading)
        warn_if_unused(effects, interventions)
        return logits

    @check_arguments
    def collect(
        self, prompts: Sequence[Prompt], points: Sequence[str], out: str | Path, **options: Any
    ) -> "Traces":
        """Trace every prompt of a corpus into a folder; resumes an interrupted run. Keywords as in
        `oss_lab.analysis.collect.collect`."""
        from oss_lab.analysis.collect import collect

        return collect(self, prompts, points, out, **options)

    @check_arguments
    def lens(
        self,
        of: Prompt,
        positions: Integers | None = None,
        target: int | None = None,
        *,
        top: int = 5,
        **asking: Unpack[PromptOptions],
    ) -> "Lens":
        """Logit lens: what each layer would predict if it were the last.

        See `oss_lab/analysis/lens.py`.
        """
        from oss_lab.analysis.lens import lens

        positions = to_integers("positions", positions)
        return lens(self, self.tokens_of(of, **asking), positions, target, top=top)

    @check_arguments
    def patch(
        self,
        clean: Prompt,
        corrupted: Prompt,
        metric: "Metric | None" = None,
        *,
        point: str | None = None,
        by: Literal["position", "head"] = "position",
        target: int | None = None,
        against: int | None = None,
        **asking: Unpack[PromptOptions],
    ) -> "Patching":
        """Patch values of the clean run into the corrupted run, one layer and position at a time.

        Args:
            point: the point to patch by position; by default "resid.pre".
            metric: an additional score of the last logits [vocab]; the log-probability of the
                target and the logit difference are always measured.
            by: "head" patches the output of one attention head at all positions.
        """
        from oss_lab.analysis.patching import patch_heads, patch_positions

        pair = self.tokens_of(clean, **asking), self.tokens_of(corrupted, **asking)
        if by == "head":
            if point not in (None, "attn.z"):
                raise LabError(f"point is {point!r}, but by='head' patches attn.z; leave it out")
            return patch_heads(self, *pair, target=target, against=against, metric=metric)
        point = "resid.pre" if point is None else point
        return patch_positions(self, *pair, point, target=target, against=against, metric=metric)

    @check_arguments
    def gradients(
        self,
        of: Prompt,
        target: "Goal",
        points: Sequence[str] = ("embed",),
        *,
        layers: Integers | None = None,
        **asking: Unpack[PromptOptions],
    ) -> "Gradients":
        """d target / d point, labeled like a trace.

        The target is a token id (its logit after the last token), a pair of ids (the difference
        of their logits) or a function of the logits [seq vocab].
        """
        from oss_lab.analysis.point_gradients import gradients

        return gradients(self, self.tokens_of(of, **asking), target, points, layers)

    def intervene(self, *interventions: Intervention) -> AbstractContextManager[Effects]:
        """Apply interventions to every request created inside the `with` block.

            with lab.intervene(AblateHead(layer=0, head=3)) as effects:
                reply = lab.chat("What is 3 * 4?")

        A request keeps the interventions that were active when it was created, those of the
        outermost block first. Other threads are not affected. `effects` counts what each
        intervention changed. When the block ends, it warns about each one that changed nothing.

        Raises:
            LabError: the model has no such layer, head, expert or slot.
        """
        return InterventionBlock(self, Effects.of(self._check_interventions(interventions)))

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """The active interventions, in order."""
        return tuple(effect.intervention for effect in find_active_effects(self))

    def _check_interventions(self, interventions: Sequence[Intervention]) -> Sequence[Intervention]:
        if isinstance(interventions, Intervention) or not isinstance(interventions, Sequence):
            raise LabError(
                "interventions: expected a list of interventions, got"
                f" {shorten_repr(interventions)}"
            )
        for each in interventions:
            if not isinstance(each, Intervention):
                raise LabError(
                    "expected an intervention such as `AblateHead(layer=0, head=3)`, got"
                    f" {shorten_repr(each)}"
                )
            each.check(self.config)
        return interventions

    def collect_effects(self, interventions: Sequence[Intervention] = ()) -> tuple[Effect, ...]:
        """The active interventions, then those of the call, each with its counts."""
        return (*find_active_effects(self), *map(Effect, self._check_interventions(interventions)))

    def tokens_of(self, of: Prompt, **asking: Unpack[PromptOptions]) -> list[int]:
        """Convert any prompt to token ids.

        A reply includes its prompt. A question or conversation is rendered as in `chat`. Text with
        `raw=True` is only tokenized. Token ids [n] or [1, n] may be a list, array or tensor.

        Raises:
            LabError: there are no tokens, too many, or one that is not in the vocabulary.
        """
        others: Any = dict(asking)
        if unknown := others.keys() - PromptOptions.__annotations__.keys():
            raise LabError(explain_unknown("keyword", min(unknown), PromptOptions.__annotations__))
        is_raw = others.pop("raw", False)
        if isinstance(of, Reply):
            tokens = [*of.prompt_tokens, *of.ids]
        elif is_raw:
            if not isinstance(of, str):
                raise LabError(f"raw=True: expected text, got {shorten_repr(of)}")
            tokens = encode_text(self.tokenizer, of)
        elif is_rendered_text(of):
            tokens, warnings = self.render(self.conversation(cast(Question, of), **others))
            warn(warnings)
        else:
            tokens = list_ids(of)
        has_settings = is_rendered_text(of) and not is_raw
        if idle := [name for name, value in others.items() if value and not has_settings]:
            raise LabError(f"{idle[0]} has no effect here: it applies to text and messages only")
        check_tokens(tokens, self.config)
        return tokens

    @check_arguments
    def conversation(
        self,
        question: Question,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolForm] = (),
        date: str | None = None,
        response_format: ResponseForm | None = None,
    ) -> Conversation:
        """Build the conversation that `chat` renders; see `oss_lab.harmony.prompt.build_prompt`.

        A response_format with a JSON schema is added to the developer message.
        """
        section = find_response_format(response_format)
        prompt = build_prompt(
            question,
            effort=effort,
            default_effort=self.effort,
            instructions=instructions,
            tools=tools,
            date=date,
        )
        return prompt if section is None else add_response_format(prompt, section)

    def render(self, conversation: Conversation) -> tuple[list[int], tuple[str, ...]]:
        """The ids of a prompt, and one sentence for each known problem of its rendering."""
        rendered = render(conversation, self.tokenizer)
        if "render" not in self.parts:
            return rendered.tokens, rendered.warnings
        ids = render_prompt(conversation, self.tokenizer, self.parts["render"])
        return ids, rendered.warnings

    def choose_engine(self, requests: Sequence[Request]) -> EngineChoice:
        """Choose one engine for all requests."""
        reads = frozenset(name for each in requests for name in each.reads)
        writes = frozenset(name for each in requests for name in each.writes)
        return self.engines.choose(reads, writes)

    def new_batch(self, chosen: EngineChoice) -> Batch:
        """Create an empty batch on the chosen engine."""
        channels = channels_by(self.tokenizer)
        return Batch(
            chosen.engine,
            usable=self.usable,
            channels=channels,
            watch=watch_reading,
            sample=self.parts.get("sample", sample),
        )

    def _build_trace_request(
        self,
        tokens: Sequence[int],
        points: Sequence[str],
        parts: PartOptions,
        effects: tuple[Effect, ...],
    ) -> Request:
        """Convert the arguments of `trace` to a request."""
        positions, channels = parts.get("positions"), parts.get("channels")
        if channels is not None:
            if positions is not None:
                raise LabError("expected positions or channels, not both")
            names = [channels] if isinstance(channels, str) else to_names("channels", channels)
            if not names:
                raise LabError("channels is empty; leave it out to record all channels")
            positions = find_channel_tokens(label_token_ids(self.tokenizer, tokens), names)
        selection = Selection.of(points, parts.get("layers"), parts.get("heads"), positions)
        selection.check(self.config, len(tokens))
        return Request(tuple(tokens), selection=selection, effects=effects)

    def _check_budget(self, requests: Sequence[Request], budget: float) -> None:
        """Raise LabError if these traces, all with the same selection, exceed the budget."""
        selection = requests[0].selection
        assert selection is not None
        check_budget(self.model, selection, [len(each.tokens) for each in requests], budget)

    def __repr__(self) -> str:
        config = self.config
        parts = f", parts replaced: {', '.join(self.parts)}" if self.parts else ""
        return (
            f"<Lab {self._name}: {config.num_hidden_layers} layers, {config.num_experts} experts"
            f" ({config.experts_per_token} active), {self.tokenizer.name} vocabulary,"
            f" {str(self.model.embedding.weight.dtype).removeprefix('torch.')} on"
            f" {self.model.device}, {self.engines.main.name} engine{parts}>"
        )

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"

    @property
    def _name(self) -> str:
        return "model" if self.checkpoint is None else self.checkpoint.folder.name


def warn_if_unused(effects: Sequence[Effect], own: Sequence[Intervention]) -> None:
    """Warn about each of the call's own interventions (the last ones) that changed nothing."""
    Effects(list(effects[len(effects) - len(own) :])).warn_if_unchanged()
