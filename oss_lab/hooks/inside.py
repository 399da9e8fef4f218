"""A model and its vocabulary with everything inside open: seen, priced and changed.

    lab.trace(reply, points=["moe.expert_ids"])["moe.expert_ids"]      # layer seq slot
    with lab.intervene(ScaleExpert(layer=2, expert=7, by=0)) as effects:
        reply = lab.chat("What is 347 * 62?")

`Lab` adds what a person says to it.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypedDict, Unpack

import tiktoken
import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.checkpoint.digest import checkpoint_digest
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import check_tokens, prefill, sequence_logits
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, render
from oss_lab.hooks.collect import Collection as Traces
from oss_lab.hooks.collect import collect
from oss_lab.hooks.cost import BUDGET, Plan, check_budget, plan
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.interventions.changes import Changes, Effect, Effects
from oss_lab.hooks.points import ALWAYS
from oss_lab.hooks.selection import Selection
from oss_lab.hooks.tracing import traced
from oss_lab.model import Taps, Transformer, untapped
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import on_channels, token_labels
from oss_lab.record.trace import Trace

Prompt = Reply | Conversation | Sequence[int]


class Chosen(TypedDict, total=False):
    """Which part of a point is kept; what is left out is kept whole.

    `channels` keeps the tokens of messages on these channels, `format` tokens included; it and
    `positions` exclude each other.
    """

    layers: Sequence[int] | None
    heads: Sequence[int] | None
    positions: Sequence[int] | None
    channels: Collection[str] | None


class Inside:
    """A loaded model and its vocabulary.

    Attributes:
        checkpoint: the files that the model was read from, None if it was not.
    """

    def __init__(
        self,
        model: Transformer,
        encoding: tiktoken.Encoding,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.model, self.encoding = model, encoding
        self.checkpoint = checkpoint
        self.config = model.config
        if encoding.n_vocab > self.config.vocab_size:
            raise LabError(
                f"vocabulary {encoding.name!r} has {encoding.n_vocab} ids, the model only"
                f" {self.config.vocab_size}; they do not belong together"
            )
        self._effects: list[Effect] = []

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 that tells the checkpoint from others; read from its files when first used."""
        return None if self.checkpoint is None else checkpoint_digest(self.checkpoint)

    def trace(
        self,
        of: Prompt,
        points: Sequence[str] = ALWAYS,
        *,
        budget: int = BUDGET,
        **chosen: Unpack[Chosen],
    ) -> Trace:
        """What the model computes at these points over a prompt and its reply, or any tokens.

        Args:
            of: a reply (with its prompt), a conversation, or token ids.
            points: names of `oss_lab.hooks.points.POINTS`; by default the cheap ones.
            budget: bytes that the trace may hold.
            chosen: `layers`, `heads`, `positions` or `channels`; see `Chosen`.

        Raises:
            LabError: what is asked for does not exist, or would not fit.
        """
        tokens, selection = self._selected(of, points, chosen)
        check_budget(self.model, selection, len(tokens), budget)
        return traced(self.model, self.encoding, tokens, selection, self.digest, self.taps())

    def plan(self, of: Prompt, points: Sequence[str] = ALWAYS, **chosen: Unpack[Chosen]) -> Plan:
        """What that trace would cost in bytes and seconds; arguments as in `trace`."""
        tokens, selection = self._selected(of, points, chosen)
        return plan(self.model, selection, tokens)

    def collect(
        self,
        prompts: Sequence[Prompt],
        points: Sequence[str],
        out: str | Path,
        *,
        layers: Sequence[int] | None = None,
        channels: Collection[str] | None = None,
        tokens_each: int | None = None,
        seed: int = 0,
        budget: int = BUDGET,
    ) -> Traces:
        """Traces of a corpus in a folder, gone on with where it was stopped; see `collect.py`."""
        return collect(
            self, prompts, points, out,
            layers=layers, channels=channels, tokens_each=tokens_each, seed=seed, budget=budget,
        )  # fmt: skip

    @contextmanager
    def intervene(self, *interventions: Intervention) -> Iterator[Effects]:
        """Change what is computed inside, in everything that this workbench does meanwhile.

        A stream goes on under those that were in force when it was begun. Interventions of an outer
        `intervene` come first. Yields the effects, which fill up; leaving
        warns of an intervention that changed nothing.

        Raises:
            LabError: the model has no such layer, head, expert or slot.
        """
        for each in interventions:
            if not isinstance(each, Intervention):
                raise LabError(f"{each!r} is no intervention; make one, such as ScaleHead(head=0)")
            each.check(self.config)
        effects = Effects.of(interventions)
        self._effects = [*self._effects, *effects.each]
        try:
            yield effects
        finally:
            self._effects = self._effects[: -len(interventions) or None]
        effects.warn_of_none()

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """Those in force now, in order."""
        return tuple(effect.of_what for effect in self._effects)

    def taps(self, begin: int = 0) -> Taps:
        """Taps for one sequence under the interventions in force; its first `begin` tokens are in
        a cache already."""
        return Changes(self._effects, begin) if self._effects else untapped

    def build_cache(self, tokens: Sequence[int]) -> KVCache:
        """A KV cache of these tokens, prefilled under the active interventions; may be empty."""
        cache = KVCache(self.config)
        if len(tokens):
            row = torch.tensor([list(tokens)], device=self.model.device)
            prefill(self.model, row, cache, taps=self.taps())
        return cache

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

    def logits(self, tokens: Sequence[int], last: int | None = None) -> Float[Tensor, "kept vocab"]:
        """float32 logits of the last `last` positions of one sequence (None: all)."""
        return sequence_logits(self.model, tokens, last, self.taps())

    def _selected(
        self, of: Prompt, points: Sequence[str], chosen: Chosen
    ) -> tuple[list[int], Selection]:
        """The tokens of `of`, and what of them is to be kept."""
        tokens = self.tokens_of(of)
        positions, channels = chosen.get("positions"), chosen.get("channels")
        if channels is not None:
            if positions is not None:
                raise LabError("give positions or channels, not both")
            positions = on_channels(token_labels(self.encoding, tokens), channels)
        parts = (chosen.get("layers"), chosen.get("heads"), positions)
        selection = Selection(tuple(points), *(None if p is None else tuple(p) for p in parts))
        selection.check(self.config, len(tokens))
        return tokens, selection
