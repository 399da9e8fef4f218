"""The effort lens: one question at every effort, with tokens by channel and experts by layer.

The Jensen-Shannon divergence of two replies' expert shares measures how differently they use a
layer's experts. Short replies differ by chance, so each value comes with the divergence after the
tokens are reassigned to the two replies at random.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from oss_lab.errors import LabError
from oss_lab.harmony import Conversation
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.hooks.arguments import check_arguments
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import count_channel_tokens

if TYPE_CHECKING:
    from oss_lab.lab import Lab

Shares = NDArray[np.float64]
Pair = tuple[Effort, Effort]
SHUFFLES = 200


@dataclass(frozen=True)
class EffortLens:
    """What changes with the effort.

    Attributes:
        tokens: number of generated tokens by channel; `format` counts Harmony's own tokens.
        divergence: of each pair of efforts, in bits per layer, from 0 (equal shares) to 1 (no
            expert in common).
        by_chance: the 95th percentile of the divergence with randomly reassigned tokens.
    """

    replies: Mapping[Effort, Reply]
    tokens: Mapping[Effort, Counter[str]]
    divergence: Mapping[Pair, Shares]
    by_chance: Mapping[Pair, Shares]


@check_arguments
def effort_lens(
    lab: "Lab", question: str | Conversation, *, seed: int = 0, max_tokens: int = 2048
) -> EffortLens:
    """Ask a question at low, medium and high effort with the same seed.

    Raises:
        LabError: a reply has fewer than two tokens.
    """
    replies: dict[Effort, Reply] = {}
    chosen: dict[Effort, NDArray[np.int64]] = {}
    for effort in EFFORTS:
        reply = lab.chat(question, effort=effort, seed=seed, max_tokens=max_tokens)
        if len(reply.ids) < 2:
            raise LabError(f"the reply at {effort} effort has one token: raise max_tokens")
        first, end = len(reply.prompt_tokens), len(reply.prompt_tokens) + len(reply.ids)
        trace = lab.trace(reply, ["moe.expert_ids"], positions=range(first, end))
        replies[effort] = reply
        chosen[effort] = trace["moe.expert_ids"].values.astype(np.int64)
    rng, experts = np.random.default_rng(seed), lab.config.num_experts
    divergence: dict[Pair, Shares] = {}
    by_chance: dict[Pair, Shares] = {}
    for pair in combinations(EFFORTS, 2):
        a, b = (chosen[effort] for effort in pair)
        divergence[pair] = jensen_shannon(expert_shares(a, experts), expert_shares(b, experts))
        pooled = np.concatenate((a, b), axis=1)
        null = []
        for _ in range(SHUFFLES):
            order = rng.permutation(pooled.shape[1])
            one, other = pooled[:, order[: a.shape[1]]], pooled[:, order[a.shape[1] :]]
            null.append(jensen_shannon(expert_shares(one, experts), expert_shares(other, experts)))
        by_chance[pair] = np.percentile(null, 95, axis=0)
    counts: dict[Effort, Counter[str]] = {
        effort: count_channel_tokens(reply, lab.tokenizer) for effort, reply in replies.items()
    }
    return EffortLens(replies, counts, divergence, by_chance)


def expert_shares(chosen: NDArray[np.int64], experts: int) -> Shares:
    """Each expert's share of a layer's choices [layer expert]; `chosen` is [layer token slot]."""
    counts = np.stack([np.bincount(layer.ravel(), minlength=experts) for layer in chosen])
    return counts / counts.sum(-1, keepdims=True)


def jensen_shannon(p: Shares, q: Shares) -> Shares:
    """Divergence of two shares [layer expert], in bits for each layer."""
    middle = (p + q) / 2
    return (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / (2 * np.log(2))
