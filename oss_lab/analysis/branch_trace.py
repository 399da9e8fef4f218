"""Trace a node of a branch tree again, span by span, and compare two nodes."""

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
from oss_lab.hooks.forward import open_hooks
from oss_lab.hooks.interventions.active import find_active_effects
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.hooks.points import ALWAYS, find_forward_points, needs_logits
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection
from oss_lab.hooks.step import ForwardPass
from oss_lab.record.diff import compare_traces
from oss_lab.record.token_labels import decode_tokens
from oss_lab.record.trace import Trace

if TYPE_CHECKING:
    from oss_lab.lab import Lab

ROUNDING = 1e-4  # with other chunk lengths, float32 values differ by less than this


@dataclass(frozen=True)
class NodeComparison:
    """How two nodes differ.

    Attributes:
        common: number of equal tokens at the start, and so the first position that differs.
        texts: the text of each node from there.
        differences: between their traces, over the positions that both have; see
            `oss_lab/record/diff.py`.
    """

    common: int
    texts: tuple[str, str]
    differences: tuple[str, ...]


def trace_node(
    lab: "Lab", node: Node, points: Sequence[str] = ALWAYS, first: int | None = None
) -> Trace:
    """Trace these points over a node's first `first` tokens (None: all).

    Each span is computed again under its own interventions, not under those active now.
    """
    end = len(node.ids) if first is None else first
    selection = Selection.of(points)
    points = selection.points
    selection.check(lab.config, end)
    check_budget(lab.model, selection, [end], BUDGET)
    recording, cache = Recording(lab.model, selection), KVCache(lab.config)
    last = None if needs_logits(points) else 0
    spans = [(a, min(b, end), made) for a, b, made in node.computed_spans if a < min(b, end)]
    reads = {name for _, _, made in spans for each in made for name in each.READS}
    writes = {each.writes for _, _, made in spans for each in made}
    chosen = lab.engines.choose(find_forward_points(points) | reads, writes)
    for begin, until, made in spans:
        effects = tuple(map(Effect, made))
        for piece in split_chunks(node.ids[begin:until]):
            read_chunk(lab, piece, cache, chosen.engine, last, effects, recording)
    applied = tuple(
        f"from position {begin} to {until - 1}: {each}"
        for begin, until, made in spans
        for each in made
    )
    origin = build_origin(chosen, lab.digest, applied, None)
    tokens = node.ids[:end]
    return label_trace(recording.tensors(), selection, tokens, lab.tokenizer, origin, lab.config)


def compare_nodes(
    lab: "Lab", a: Node, b: Node, points: Sequence[str] = ALWAYS, tolerance: float = ROUNDING
) -> NodeComparison:
    """Compare the tokens and traced values of two nodes, of one tree or of two.

    Args:
        tolerance: differences up to this size are not reported; see `oss_lab/record/diff.py`.
    """
    pairs = list(zip(a.ids, b.ids, strict=False))
    common = next((n for n, (x, y) in enumerate(pairs) if x != y), len(pairs))
    x, y = (trace_node(lab, node, points, first=len(pairs)) for node in (a, b))
    texts = (
        decode_tokens(lab.tokenizer, a.ids[common:]),
        decode_tokens(lab.tokenizer, b.ids[common:]),
    )
    return NodeComparison(common, texts, tuple(compare_traces(x, y, tolerance)))


def split_chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The ids in chunks of at most PREFILL_CHUNK."""
    return (ids[n : n + PREFILL_CHUNK] for n in range(0, len(ids), PREFILL_CHUNK))


@torch.inference_mode()
def read_chunk(
    lab: "Lab",
    ids: Sequence[int],
    cache: KVCache,
    engine: Engine,
    last: int | None,
    effects: tuple[Effect, ...],
    recording: Recording | None = None,
) -> Float[Tensor, "kept vocab"]:
    """Read ids into a cache; returns the logits of the last `last` of them (None: all)."""
    row = torch.tensor([list(ids)], device=lab.model.device)
    step = ForwardPass(row, cache.positions(len(ids), row.device), True, (0,))
    with open_hooks(step, [effects], [recording]) as hooks:
        return engine.forward(row, cache, last=last, hooks=hooks)[0]


def read_tokens(lab: "Lab", ids: Sequence[int], cache: KVCache, engine: Engine) -> list[float]:
    """Read all ids except the last into a cache, under the active interventions.

    Returns the log-probability of each id after the first.
    """
    found: list[float] = []
    for piece in split_chunks(ids[:-1]):
        logits = read_chunk(lab, piece, cache, engine, None, find_active_effects(lab))
        logprobs = logits.float().log_softmax(-1).cpu()
        begin = len(found) + 1
        following = torch.tensor(ids[begin : begin + len(piece)])
        found += logprobs.gather(-1, following[:, None])[:, 0].tolist()
    return found
