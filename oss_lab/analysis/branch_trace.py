"""What was computed in a node of a tree, read again piece by piece, and where two nodes part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.branch_node import Node
from oss_lab.analysis.tracing import build_origin, label_trace
from oss_lab.engine.cache import KVCache
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import PREFILL_CHUNK
from oss_lab.hooks.cost import BUDGET, check_budget
from oss_lab.hooks.forward import hooks_of
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.hooks.interventions.in_force import in_force
from oss_lab.hooks.points import ALWAYS, lines_of, needs_logits
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection
from oss_lab.hooks.step import Step
from oss_lab.record.diff import differences
from oss_lab.record.token_labels import text_of
from oss_lab.record.trace import Trace

if TYPE_CHECKING:
    from oss_lab.lab import Lab

ROUNDING = 1e-4  # the same values, computed in pieces of other lengths, differ by less in float32


@dataclass(frozen=True)
class Parting:
    """Where two nodes part.

    Attributes:
        common: tokens at the beginning that are the same; the position where they part.
        texts: of each from there on.
        differences: of their traces over the positions that both have; see
            `oss_lab/record/diff.py`.
    """

    common: int
    texts: tuple[str, str]
    differences: tuple[str, ...]


def retraced(
    lab: "Lab", node: Node, points: Sequence[str] = ALWAYS, first: int | None = None
) -> Trace:
    """What was computed at these points over a node's first `first` tokens (None: all), each
    stretch again under its own interventions, and not under those in force now."""
    end = len(node.ids) if first is None else first
    selection = Selection(tuple(points))
    selection.check(lab.config, end)
    check_budget(lab.model, selection, [end], BUDGET)
    recording, cache = Recording(lab.model, selection), KVCache(lab.config)
    last = None if needs_logits(points) else 0
    stretches = [(a, min(b, end), made) for a, b, made in node.computed if a < min(b, end)]
    reads = {name for _, _, made in stretches for each in made for name in each.READS}
    writes = {each.writes for _, _, made in stretches for each in made}
    chosen = lab.engines.choose(lines_of(points) | reads, writes)
    for begin, until, made in stretches:
        effects = tuple(map(Effect, made))
        for piece in pieces(node.ids[begin:until]):
            forward(lab, piece, cache, chosen.engine, last, effects, recording)
    applied = tuple(
        f"from position {begin} to {until - 1}: {each}"
        for begin, until, made in stretches
        for each in made
    )
    origin = build_origin(chosen, lab.digest, applied, None)
    tokens = node.ids[:end]
    return label_trace(recording.tensors(), selection, tokens, lab.tokenizer, origin, lab.config)


def parting(
    lab: "Lab", a: Node, b: Node, points: Sequence[str] = ALWAYS, tolerance: float = ROUNDING
) -> Parting:
    """Where two nodes part, in tokens and in what was computed; they may be of two trees.

    Args:
        tolerance: differences up to it are not reported; see `oss_lab/record/diff.py`.
    """
    pairs = list(zip(a.ids, b.ids, strict=False))
    common = next((n for n, (x, y) in enumerate(pairs) if x != y), len(pairs))
    x, y = (retraced(lab, node, points, first=len(pairs)) for node in (a, b))
    texts = (text_of(lab.tokenizer, a.ids[common:]), text_of(lab.tokenizer, b.ids[common:]))
    return Parting(common, texts, tuple(differences(x, y, tolerance)))


def pieces(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The ids in chunks that are read at once."""
    return (ids[n : n + PREFILL_CHUNK] for n in range(0, len(ids), PREFILL_CHUNK))


@torch.inference_mode()
def forward(
    lab: "Lab",
    ids: Sequence[int],
    cache: KVCache,
    engine: Engine,
    last: int | None,
    effects: tuple[Effect, ...],
    recording: Recording | None = None,
) -> Float[Tensor, "kept vocab"]:
    """Read ids into a cache; the logits of the last ones."""
    row = torch.tensor([list(ids)], device=lab.model.device)
    step = Step(row, cache.positions(len(ids), row.device), True, (0,))
    with hooks_of(step, [effects], [recording]) as hooks:
        return engine.forward(row, cache, last=last, hooks=hooks)[0]


def read_on(lab: "Lab", ids: Sequence[int], cache: KVCache, engine: Engine) -> list[float]:
    """Read all ids but the last into a cache, under the interventions in force; log-probability of
    each id after the first."""
    found: list[float] = []
    for piece in pieces(ids[:-1]):
        logits = forward(lab, piece, cache, engine, None, in_force(lab))
        logprobs = logits.float().log_softmax(-1).cpu()
        begin = len(found) + 1
        following = torch.tensor(ids[begin : begin + len(piece)])
        found += logprobs.gather(-1, following[:, None])[:, 0].tolist()
    return found
