"""The workbench in one object: a model, its vocabulary, and what a person does with them.

    lab = oss_lab.load("nano")
    reply = lab.chat("What is 347 * 62?", effort="high")
    reply.analysis, reply.final
    lab.trace(reply, points=["moe.expert_ids"])["moe.expert_ids"]      # layer seq slot

Conversations are rendered with the `model` layout and the `spec` policy.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import tiktoken
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oss_lab.changes import Both, Changes, Effect, Effects
from oss_lab.checkpoint.digest import checkpoint_digest
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.cost import BUDGET, Plan, check_budget, plan
from oss_lab.errors import LabError
from oss_lab.generate import Sampling, Token, check_tokens, generate, sequence_logits
from oss_lab.harmony import (
    Conversation,
    DeveloperContent,
    Message,
    SystemContent,
    ToolDescription,
    function_tools,
    render,
    stop_tokens,
)
from oss_lab.harmony.messages import EFFORTS, Effort, with_effort
from oss_lab.harmony.specials import ENDOFTEXT, specials
from oss_lab.interventions import Intervention
from oss_lab.model import Taps, Transformer, untapped
from oss_lab.points import ALWAYS
from oss_lab.recording import Recording, Selection, while_written
from oss_lab.reply import Reply, ReplyBuilder, Stream
from oss_lab.token_labels import on_channels, token_labels
from oss_lab.trace import Trace
from oss_lab.tracing import assembled, traced

MAX_TOKENS = 2048
Prompt = Reply | Conversation | Sequence[int]


class Lab:
    """A loaded model and its vocabulary.

    Attributes:
        sampling, effort: used where a call gives none. nano, which is seldom right below high
            effort, is loaded with that; the published models have Harmony's default, medium.
        checkpoint: the files that the model was read from, None if it was not.
    """

    def __init__(
        self,
        model: Transformer,
        encoding: tiktoken.Encoding,
        sampling: Sampling,
        effort: Effort = "medium",
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.model, self.encoding = model, encoding
        self.checkpoint = checkpoint
        self.sampling = sampling
        self.effort: Effort = effort
        self.config = model.config
        if encoding.n_vocab > self.config.vocab_size:
            raise LabError(
                f"vocabulary {encoding.name!r} has {encoding.n_vocab} ids, the model only"
                f" {self.config.vocab_size}; they do not belong together"
            )
        self._effects: list[Effect] = []
        self._usable = usable_ids(encoding, self.config.vocab_size)

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 that tells the checkpoint from others; read from its files when first used."""
        return None if self.checkpoint is None else checkpoint_digest(self.checkpoint)

    def conversation(
        self,
        question: str | Conversation,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolDescription] = (),
    ) -> Conversation:
        """System message, developer message if there is something in it, and the question.

        A Conversation stays as it is, but for its effort where one is given; it has its own
        instructions and tools. A question without one gets `self.effort`.
        """
        if effort not in (None, *EFFORTS):
            raise LabError(f"effort is {effort!r}; use one of {', '.join(EFFORTS)}")
        if isinstance(question, Conversation):
            if instructions is not None or tools:
                raise LabError(
                    "a conversation has a developer message of its own: put instructions and tools"
                    " there"
                )
            return question if effort is None else with_effort(question, effort)
        messages = [Message.of("system", SystemContent(reasoning_effort=effort or self.effort))]
        if instructions is not None or tools:
            declared = function_tools(tools) if tools else None
            messages.append(Message.of("developer", DeveloperContent(instructions, declared)))
        return Conversation.of(*messages, Message.of("user", question))

    def stream(
        self,
        question: str | Conversation,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolDescription] = (),
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        analysis_budget: int | None = None,
        alternatives: int = 0,
        points: Sequence[str] = (),
    ) -> Stream:
        """Begin a reply to a question or a conversation; iterate over its Harmony events.

        Args:
            instructions, tools: go into a developer message.
            analysis_budget: tokens of analysis after which `final` is begun in the model's stead.
            alternatives: how many of the likeliest tokens to keep for each place.
            points: what to record while the reply is written; it is then in `reply.trace`.
        """
        prompt = self.conversation(question, effort=effort, instructions=instructions, tools=tools)
        settings = (sampling, max_tokens, analysis_budget, alternatives)
        if not points:
            builders, tokens = self._begin([prompt], *settings, self._changes())
            return Stream(builders[0], tokens)
        changes, recording = self._changes(), Recording(self.model, while_written(points))
        taps = Both(changes, recording)
        builders, tokens = self._begin([prompt], *settings, taps)
        seed = (sampling or self.sampling).seed

        def recorded(read: Sequence[int]) -> Trace:
            kernels = self.model.computed_by(taps.points)
            return assembled(
                self.model, self.encoding, read, recording, self.digest, changes,
                kernels=kernels, seed=seed,
            )  # fmt: skip

        return Stream(builders[0], tokens, recorded)

    def chat(
        self,
        question: str | Conversation,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolDescription] = (),
        sampling: Sampling | None = None,
        seed: int | None = None,
        max_tokens: int = MAX_TOKENS,
        analysis_budget: int | None = None,
        alternatives: int = 0,
        points: Sequence[str] = (),
    ) -> Reply:
        """The whole reply; arguments as in `stream`, `seed` replaces the sampling's."""
        sampling = sampling or self.sampling
        stream = self.stream(
            question,
            effort=effort,
            instructions=instructions,
            tools=tools,
            sampling=sampling if seed is None else replace(sampling, seed=seed),
            max_tokens=max_tokens,
            analysis_budget=analysis_budget,
            alternatives=alternatives,
            points=points,
        )
        for _ in stream:
            pass
        return stream.reply

    def replies(
        self,
        prompts: Sequence[Conversation],
        *,
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        analysis_budget: int | None = None,
        alternatives: int = 0,
    ) -> list[Reply]:
        """One reply a conversation, generated as one batch."""
        settings = (sampling, max_tokens, analysis_budget, alternatives)
        builders, tokens = self._begin(prompts, *settings, self._changes())
        for row, token in tokens:
            builders[row].add(token)
        return [builder.finish()[1] for builder in builders]

    def continuation(
        self,
        text: str,
        *,
        max_tokens: int = 64,
        sampling: Sampling | None = None,
        alternatives: int = 0,
    ) -> Iterator[Token]:
        """Tokens that go on from plain text, without Harmony, up to `<|endoftext|>` (yielded)."""
        tokens = generate(
            self.model,
            [self.encoding.encode_ordinary(text)],
            stop={specials(self.encoding).ids[ENDOFTEXT]},
            max_tokens=max_tokens,
            sampling=sampling or self.sampling,
            usable=self._usable,
            alternatives=alternatives,
            taps=self._changes(),
        )
        return (token for _, token in tokens)

    def complete(self, text: str, *, max_tokens: int = 64, sampling: Sampling | None = None) -> str:
        """The text of `continuation`."""
        ids = [t.id for t in self.continuation(text, max_tokens=max_tokens, sampling=sampling)]
        if ids and ids[-1] == specials(self.encoding).ids[ENDOFTEXT]:
            ids.pop()
        return self.encoding.decode(ids)

    def trace(
        self,
        of: Prompt,
        points: Sequence[str] = ALWAYS,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        channels: Collection[str] | None = None,
        budget: int = BUDGET,
    ) -> Trace:
        """What the model computes at these points over a prompt and its reply, or any tokens.

        Args:
            of: a reply (with its prompt), a conversation, or token ids.
            points: names of `oss_lab.points.POINTS`; by default the cheap ones.
            layers, heads, positions: None for all of them.
            channels: only tokens of messages on these channels, `format` tokens included.
            budget: bytes that the trace may hold.

        Raises:
            LabError: what is asked for does not exist, or would not fit.
        """
        tokens, selection = self._selected(of, points, layers, heads, positions, channels)
        check_budget(self.model, selection, len(tokens), budget)
        return traced(self.model, self.encoding, tokens, selection, self.digest, self._changes())

    @contextmanager
    def intervene(self, *interventions: Intervention) -> Iterator[Effects]:
        """Change what is computed inside, in everything that this workbench does meanwhile.

        Interventions of an outer `intervene` come first. Yields the effects, which fill up; leaving
        warns of an intervention that changed nothing.

        Raises:
            LabError: the model has no such layer, head, expert or slot.
        """
        for each in interventions:
            each.check(self.config)
        effects = Effects.of(interventions)
        self._effects = [*self._effects, *effects.each]
        try:
            yield effects
        finally:
            self._effects = self._effects[: -len(interventions) or None]
        effects.warn_of_none()

    def _changes(self) -> Taps:
        """Taps for one generation or trace under the interventions that are in force."""
        return Changes(self._effects) if self._effects else untapped

    def plan(
        self,
        of: Prompt,
        points: Sequence[str] = ALWAYS,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        channels: Collection[str] | None = None,
    ) -> Plan:
        """What that trace would cost in bytes and seconds; arguments as in `trace`."""
        tokens, selection = self._selected(of, points, layers, heads, positions, channels)
        return plan(self.model, selection, tokens)

    def tokens_of(self, of: Prompt) -> list[int]:
        """The ids of a reply with its prompt, of a rendered conversation, or as they are given.

        Raises:
            LabError: there are none, too many, or one that the model does not have.
        """
        if isinstance(of, Reply):
            tokens = [*of.prompt_tokens, *of.ids]
        else:
            tokens = render(of, self.encoding).tokens if isinstance(of, Conversation) else list(of)
        check_tokens(tokens, self.config)
        return tokens

    def _selected(
        self,
        of: Prompt,
        points: Sequence[str],
        layers: Sequence[int] | None,
        heads: Sequence[int] | None,
        positions: Sequence[int] | None,
        channels: Collection[str] | None,
    ) -> tuple[list[int], Selection]:
        """The tokens of `of`, and what of them is to be kept."""
        tokens = self.tokens_of(of)
        if channels is not None:
            if positions is not None:
                raise LabError("give positions or channels, not both")
            positions = on_channels(token_labels(self.encoding, tokens), channels)
        chosen = [None if each is None else tuple(each) for each in (layers, heads, positions)]
        selection = Selection(tuple(points), *chosen)
        selection.check(self.config, len(tokens))
        return tokens, selection

    def logits(self, tokens: Sequence[int], last: int | None = None) -> Float[Tensor, "kept vocab"]:
        """float32 logits of the last `last` positions of one sequence (None: all)."""
        return sequence_logits(self.model, tokens, last, self._changes())

    def _begin(
        self,
        prompts: Sequence[Conversation],
        sampling: Sampling | None,
        max_tokens: int,
        analysis_budget: int | None,
        alternatives: int,
        taps: Taps,
    ) -> tuple[list[ReplyBuilder], Iterator[tuple[int, Token]]]:
        rendered = [tuple(render(prompt, self.encoding).tokens) for prompt in prompts]
        builders = [
            ReplyBuilder(self.encoding, prompt, tokens, analysis_budget)
            for prompt, tokens in zip(prompts, rendered, strict=True)
        ]
        turn_ends = stop_tokens(self.encoding, for_sampling=True)
        tokens = generate(
            self.model,
            rendered,
            stop=turn_ends | {specials(self.encoding).ids[ENDOFTEXT]},
            max_tokens=max_tokens,
            sampling=sampling or self.sampling,
            usable=self._usable,
            alternatives=alternatives,
            force=lambda row: builders[row].next_forced(),
            taps=taps,
        )
        return builders, tokens


def usable_ids(encoding: tiktoken.Encoding, vocab_size: int) -> Bool[Tensor, "vocab"]:
    """Which rows of the unembedding may be generated: all but the reserved tokens'."""
    usable = torch.arange(vocab_size) < encoding.n_vocab
    for name in encoding.special_tokens_set:
        if name.startswith("<|reserved_"):
            usable[encoding.encode_single_token(name)] = False
    return usable
