"""What was computed in a node of a tree, read again piece by piece, and where two nodes part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from oss_lab.analysis.branch_node import Node
from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import PREFILL_CHUNK
from oss_lab.hooks.cost import BUDGET, check_budget
from oss_lab.hooks.interventions.changes import Both, Changes, Effect
from oss_lab.hooks.points import ALWAYS, needs_logits
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection
from oss_lab.hooks.tracing import assembled
from oss_lab.lab import Lab
from oss_lab.model import Taps, untapped
from oss_lab.record.diff import differences
from oss_lab.record.token_labels import text_of
from oss_lab.record.trace import Trace

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
    lab: Lab, node: Node, points: Sequence[str] = ALWAYS, first: int | None = None
) -> Trace:
    """What was computed at these points over a node's first `first` tokens (None: all), each
    stretch again under its own interventions, and not under those in force now."""
    end = len(node.ids) if first is None else first
    selection = Selection(tuple(points))
    selection.check(lab.config, end)
    check_budget(lab.model, selection, end, BUDGET)
    recording, cache = Recording(lab.model, selection), KVCache(lab.config)
    last = None if needs_logits(points) else 0
    kernels: set[str] = set()
    told = []
    for begin, until, made in node.computed:
        until = min(until, end)
        if begin >= until:
            break
        changes = Changes([Effect(each) for each in made], begin) if made else untapped
        taps = Both(changes, recording)
        for piece in pieces(node.ids[begin:until]):
            forward(lab, piece, cache, taps, last)
        kernels.add(lab.model.computed_by(taps))
        told += [f"from position {begin} to {until - 1}: {each}" for each in made]
    trace = assembled(
        lab.model, lab.encoding, node.ids[:end], recording, lab.digest, untapped,
        kernels=" and ".join(sorted(kernels)),
    )  # fmt: skip
    return replace(trace, origin=replace(trace.origin, interventions=tuple(told)))


def parting(
    lab: Lab, a: Node, b: Node, points: Sequence[str] = ALWAYS, tolerance: float = ROUNDING
) -> Parting:
    """Where two nodes part, in tokens and in what was computed; they may be of two trees.

    Args:
        tolerance: differences up to it are not reported; see `oss_lab/record/diff.py`.
    """
    pairs = list(zip(a.ids, b.ids, strict=False))
    common = next((n for n, (x, y) in enumerate(pairs) if x != y), len(pairs))
    x, y = (retraced(lab, node, points, first=len(pairs)) for node in (a, b))
    texts = (text_of(lab.encoding, a.ids[common:]), text_of(lab.encoding, b.ids[common:]))
    return Parting(common, texts, tuple(differences(x, y, tolerance)))


def pieces(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The ids in chunks that are read at once."""
    return (ids[n : n + PREFILL_CHUNK] for n in range(0, len(ids), PREFILL_CHUNK))


@torch.inference_mode()
def forward(
    lab: Lab, ids: Sequence[int], cache: KVCache, taps: Taps, last: int | None
) -> Float[Tensor, "kept vocab"]:
    """Read ids into a cache; the logits of the last ones."""
    row = torch.tensor([list(ids)], device=lab.model.device)
    return lab.model(row, cache, last=last, taps=taps)[0]


def read_on(lab: Lab, ids: Sequence[int], cache: KVCache, taps: Taps) -> list[float]:
    """Read all ids but the last into a cache; log-probability of each id behind the first."""
    found: list[float] = []
    for piece in pieces(ids[:-1]):
        logprobs = forward(lab, piece, cache, taps, None).float().log_softmax(-1).cpu()
        begin = len(found) + 1
        following = torch.tensor(ids[begin : begin + len(piece)])
        found += logprobs.gather(-1, following[:, None])[:, 0].tolist()
    return found
