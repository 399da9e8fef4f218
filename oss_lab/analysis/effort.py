"""The effort lens: one question at every effort, its tokens by channel, and who worked on them.

How differently two replies use the experts of a layer is told by the Jensen-Shannon divergence of
their shares of the choices. Replies of a few tokens differ by chance already, so that beside each
figure stands what tokens dealt anew between the two replies give.
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
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import channel_counts

if TYPE_CHECKING:
    from oss_lab.lab import Lab

Shares = NDArray[np.float64]
Pair = tuple[Effort, Effort]
SHUFFLES = 200


@dataclass(frozen=True)
class EffortLens:
    """What changes with the effort.

    Attributes:
        tokens: written, by channel; `format` is what is no content.
        divergence: of each pair of efforts, bits a layer, from 0 (the same use) to 1 (no expert in
            common).
        by_chance: the 95th percentile of the same with the tokens dealt anew.
    """

    replies: Mapping[Effort, Reply]
    tokens: Mapping[Effort, Counter[str]]
    divergence: Mapping[Pair, Shares]
    by_chance: Mapping[Pair, Shares]


def effort_lens(
    lab: "Lab", question: str | Conversation, *, seed: int = 0, max_tokens: int = 2048
) -> EffortLens:
    """Ask at low, medium and high effort with the same seed.

    Raises:
        LabError: a reply is too short to have been routed.
    """
    replies: dict[Effort, Reply] = {}
    chosen: dict[Effort, NDArray[np.int64]] = {}
    for effort in EFFORTS:
        reply = lab.chat(question, effort=effort, seed=seed, max_tokens=max_tokens)
        if len(reply.ids) < 2:
            raise LabError(f"the reply at {effort} effort is one token; give it more max_tokens")
        first, end = len(reply.prompt_tokens), len(reply.prompt_tokens) + len(reply.ids)
        trace = lab.trace(reply, ["moe.expert_ids"], positions=range(first, end))
        replies[effort] = reply
        chosen[effort] = trace["moe.expert_ids"].values.astype(np.int64)
    rng, experts = np.random.default_rng(seed), lab.config.num_experts
    divergence: dict[Pair, Shares] = {}
    by_chance: dict[Pair, Shares] = {}
    for pair in combinations(EFFORTS, 2):
        a, b = (chosen[effort] for effort in pair)
        divergence[pair] = jensen_shannon(use(a, experts), use(b, experts))
        dealt = np.concatenate((a, b), axis=1)
        null = []
        for _ in range(SHUFFLES):
            order = rng.permutation(dealt.shape[1])
            one, other = dealt[:, order[: a.shape[1]]], dealt[:, order[a.shape[1] :]]
            null.append(jensen_shannon(use(one, experts), use(other, experts)))
        by_chance[pair] = np.percentile(null, 95, axis=0)
    counts: dict[Effort, Counter[str]] = {
        effort: channel_counts(reply, lab.tokenizer) for effort, reply in replies.items()
    }
    return EffortLens(replies, counts, divergence, by_chance)


def use(chosen: NDArray[np.int64], experts: int) -> Shares:
    """Each expert's share of a layer's choices [layer expert]; `chosen` is [layer token slot]."""
    counts = np.stack([np.bincount(layer.ravel(), minlength=experts) for layer in chosen])
    return counts / counts.sum(-1, keepdims=True)


def jensen_shannon(p: Shares, q: Shares) -> Shares:
    """Bits between two shares [layer expert], for each layer."""
    middle = (p + q) / 2
    return (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1) / (2 * np.log(2))
