"""Lesson 17: which experts a fine-tuning run moved, and whether it moves the same ones each time.

There are two measures. The change of an expert is the size of its low-rank parts over that of its
frozen matrices (Frobenius norms of both matrices together). Its choices are how many tokens chose
it, on the same conversations before and after. Expert numbers mean nothing across layers, so
correlations compare ranks within a layer, and the null shuffles the experts of each layer.
"""

from functools import cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from oss_lab.course.labs.finetune.data import draw_new, draw_old
from oss_lab.finetune.adapted import AdaptedExperts
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab, load
from oss_lab.model.experts import ExpertMatrices
from oss_lab.model.transformer import Block
from oss_lab.nano.tasks.problem import Problem
from oss_lab.nano.training.data import encode_opening, encode_row

ASKED = 50  # conversations of each kind
Conversations = list[tuple[Problem, Effort]]


@torch.no_grad()
def measure_change(lab: Lab) -> list[list[float]]:
    """The change of each expert [layer expert]; 0 without low-rank parts."""
    squares, base = [], list[tuple[ExpertMatrices, ExpertMatrices]]()
    for up, down in list_matrices(lab):
        assert isinstance(up, AdaptedExperts)
        assert isinstance(down, AdaptedExperts)
        base.append((up.base, down.base))
        changes = [
            each.part.up @ each.part.down * each.part.scale for each in (up, down) if each.part
        ]
        zero = torch.zeros(lab.config.num_experts)
        squares.append(sum((each.square().sum((1, 2)) for each in changes), zero))
    change = torch.stack(squares).sqrt().numpy() / measure_sizes(base, lab.config.num_experts)
    return change.round(5).tolist()


def list_matrices(lab: Lab) -> list[tuple[ExpertMatrices, ExpertMatrices]]:
    """Both stacks of matrices of each layer's experts."""
    blocks = [cast(Block, block).mlp for block in lab.model.block]
    return [(mlp.mlp1_weight, mlp.mlp2_weight) for mlp in blocks]


def measure_sizes(
    layers: list[tuple[ExpertMatrices, ExpertMatrices]], experts: int
) -> NDArray[np.float32]:
    """The size of each expert's matrices [layer expert]."""
    squares = [
        [sum(each.square().sum() for each in pair) for pair in zip(*both, strict=True)]
        for both in (
            [stack.matrices(range(experts), torch.float32) for stack in layer] for layer in layers
        )
    ]
    return np.sqrt(np.array(squares, np.float32))


@cache
def draw_conversations() -> dict[str, Conversations]:
    """Held-out conversations of the new task, and conversations of nano's own training."""
    new: Conversations = [(problem, "low") for problem in draw_new(ASKED, 0, "held_out")]
    return {"new": new, "old": draw_old(ASKED, 0)}


@cache
def encode_conversations() -> dict[str, list[tuple[int, list[int]]]]:
    """For each conversation where its first question begins, and its tokens."""
    encoding = load("nano", verbose=False).tokenizer
    found: dict[str, list[tuple[int, list[int]]]] = {}
    for kind, drawn in draw_conversations().items():
        found[kind] = []
        for problem, effort in drawn:
            opening = encode_opening(problem, effort, None, encoding)
            tokens = opening + encode_row(problem, effort, encoding)[0]
            found[kind].append((len(opening), tokens))
    return found


def list_choices(lab: Lab, kind: str) -> NDArray[np.int64]:
    """The experts of every token after the opening [layer token slot], in ascending order."""
    layers, found = range(lab.config.num_hidden_layers), list[NDArray[np.int64]]()
    for start, tokens in encode_conversations()[kind]:
        trace = lab.trace(tokens, ["moe.expert_ids"])
        ids = np.stack([np.asarray(trace["moe.expert_ids", n].tolist()) for n in layers])
        found.append(np.sort(ids[:, start:], axis=-1))
    return np.concatenate(found, axis=1)


@cache
def choices_before(kind: str) -> NDArray[np.int64]:
    """Of nano as it is shipped."""
    return list_choices(load("nano", kernels="reference", verbose=False), kind)


def compare_choices(lab: Lab) -> dict[str, dict[str, Any]]:
    """For each kind of conversation how many tokens chose each expert [layer expert], and for each
    layer how many choices differ from those of nano on the same tokens.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind in ("new", "old"):
        now, before = list_choices(lab, kind), choices_before(kind)
        kept = (now[..., :, None] == before[..., None, :]).any(-1)
        counts = [np.bincount(each.ravel(), minlength=lab.config.num_experts) for each in now]
        found[kind] = {
            "counts": [each.tolist() for each in counts],
            "differ": (~kept).sum((1, 2)).tolist(),
        }
    return found


def rank_correlation(first: Any, second: Any) -> float:
    """Correlation of ranks within layers, over all layers; both are [layer expert]."""
    a, b = (center_ranks(each) for each in (first, second))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def center_ranks(values: Any) -> NDArray[np.float64]:
    """Ranks within each layer, with a mean of 0; equal values share the mean of their ranks."""
    from scipy.stats import rankdata

    ranks = rankdata(np.asarray(values), axis=-1)
    return ranks - ranks.mean(-1, keepdims=True)


def permute_null(first: Any, second: Any, draws: int = 2000, seed: int = 0) -> list[float]:
    """Rank correlations after shuffling the experts of each layer, in ascending order."""
    rng, a, b = np.random.default_rng(seed), center_ranks(first), center_ranks(second)
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return sorted(float((a * rng.permuted(b, axis=-1)).sum() / size) for _ in range(draws))
