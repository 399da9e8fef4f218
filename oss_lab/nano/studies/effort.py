"""What does the effort change? Tokens by channel, accuracy, and who works on them, by task.

n held-out problems of each task are asked at each effort, greedily. One in five of them is read
once more for its experts, and their use is compared between efforts three times:

    reply      all that the assistant wrote. Its tokens differ in kind between efforts (at low
               there is no analysis at all), so that this tells mostly what is written.
    final      the tokens of the final answer, where it is the same at both efforts. The tokens
               are equal; what stands before them is not.
    question   the tokens of the user's message. Tokens and places are equal, and all before them
               but the one word of the effort.

Equal tokens differ little by chance: for `final` and `question` the null to go by is the one whose
problems are swapped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Literal

import numpy as np

from oss_lab.analysis.statistics.bootstrap import Mean
from oss_lab.analysis.statistics.shares import Share
from oss_lab.harmony.messages import CHANNELS, EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.divergence import Chosen, Divergence, divergences, moved
from oss_lab.nano.studies.problems import drawn, replied
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.lists import Lists
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.mix import FREE_TEXT
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import progress
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import channel_counts, content_on, reply_tokens

Part = Literal["reply", "final", "question"]
MATCHED: tuple[Part, ...] = ("final", "question")
TASKS: dict[str, Task] = {
    "product": Products(lengths=(3, 2)),
    "sum": Sums(),
    "look-up": Lookup(filler=(40, 80)),
    "list": Lists(),
    "free text": FREE_TEXT,
}
ONE_IN = 5


@dataclass(frozen=True)
class AtEffort:
    """The replies to one task at one effort; `tokens` by channel, `format` is what is no content.

    A reply that MAX_TOKENS cut off is not right.
    """

    effort: Effort
    accuracy: Share
    cut_off: int
    tokens: dict[str, Mean]


@dataclass(frozen=True)
class Compared:
    """Two efforts, in the tokens of one part.

    Attributes:
        problems, tokens: compared; tokens at the one and the other effort.
        divergence: of the experts' use, a layer each.
        moved: of equal tokens, the share of a token's experts that change with the effort, a layer
            each; None where tokens are not equal.
        moved_by_chance: the same between tokens of the part drawn at random.
    """

    efforts: tuple[Effort, Effort]
    part: Part
    problems: int
    tokens: tuple[int, int]
    divergence: list[Divergence]
    moved: list[Mean] | None
    moved_by_chance: list[float] | None


@dataclass(frozen=True)
class Efforts:
    """The experiment on one task; `routed` problems were read for their experts."""

    task: str
    seed: int
    n: int
    routed: int
    by_effort: list[AtEffort]
    compared: list[Compared]


@dataclass(frozen=True)
class Routed:
    """The tokens of one part of one reply, and their experts."""

    tokens: list[int]
    chosen: Chosen


def measure(lab: Lab, n: int, seed: int) -> list[Efforts]:
    """Ask n problems of each task at each effort."""
    found: list[Efforts] = []
    for name, task in progress(TASKS.items(), "effort", leave=True):
        problems = drawn(task, n, Random(f"{seed}/effort/{name}"))
        replies = {effort: replied(lab, problems, effort) for effort in EFFORTS}
        some = max(1, n // ONE_IN)
        parts: dict[Effort, list[dict[Part, Routed]]] = {
            e: [parts_of(lab, reply) for reply in replies[e][:some]] for e in EFFORTS
        }
        by_effort = [at_effort(lab, problems, replies[e], e, seed) for e in EFFORTS]
        compared = [
            each
            for pair in combinations(EFFORTS, 2)
            for part in ("reply", *MATCHED)
            if (each := compare(lab, parts, pair, part, seed)) is not None
        ]
        found.append(Efforts(name, seed, n, some, by_effort, compared))
    return found


def at_effort(
    lab: Lab, problems: Sequence[Problem], replies: Sequence[Reply], effort: Effort, seed: int
) -> AtEffort:
    """Count what came at one effort."""
    counted = [channel_counts(reply, lab.tokenizer) for reply in replies]
    whole = [reply.stop != "length" for reply in replies]
    right = [
        ended and problem.is_right(reply.messages)
        for ended, problem, reply in zip(whole, problems, replies, strict=True)
    ]
    tokens = {
        channel: Mean.of([count[channel] for count in counted], seed)
        for channel in (*CHANNELS, "format")
    }
    return AtEffort(effort, Share.of(right), whole.count(False), tokens)


def parts_of(lab: Lab, reply: Reply) -> dict[Part, Routed]:
    """The experts of each part of a reply and its prompt."""
    labels, first = reply_tokens(reply, lab.tokenizer), len(reply.prompt_tokens)
    trace = lab.trace(reply, ["moe.expert_ids"])
    chosen = trace["moe.expert_ids"].values.astype(np.int64)
    places: dict[Part, list[int]] = {
        "reply": list(range(first, len(labels))),
        "final": [p for p in content_on(labels, "final") if p >= first],
        "question": [
            p for p in range(first) if (labels[p].role, labels[p].part) == ("user", "content")
        ],
    }
    return {
        part: Routed([trace.tokens[p] for p in where], chosen[:, where])
        for part, where in places.items()
    }


def compare(
    lab: Lab,
    parts: Mapping[Effort, Sequence[Mapping[Part, Routed]]],
    efforts: tuple[Effort, Effort],
    part: Part,
    seed: int,
) -> Compared | None:
    """Two efforts in one part; None where no problem has it at both."""
    pairs = [(a[part], b[part]) for a, b in zip(*(parts[e] for e in efforts), strict=True)]
    matched, experts = part in MATCHED, lab.config.num_experts
    pairs = [(a, b) for a, b in pairs if a.tokens and (not matched or a.tokens == b.tokens)]
    if not pairs:
        return None
    first, second = ([pair[side].chosen for pair in pairs] for side in (0, 1))
    means = by_chance = None
    if matched:
        by_problem = [moved(a, b, experts).mean(0) for a, b in zip(first, second, strict=True)]
        means = [Mean.of(layer, seed) for layer in np.stack(by_problem, 1)]
        a, b = np.concatenate(first, 1), np.concatenate(second, 1)
        order = np.random.default_rng(seed).permutation(b.shape[1])
        by_chance = moved(a, b[:, order], experts).mean(0).tolist()
    return Compared(
        efforts,
        part,
        len(pairs),
        (sum(x.shape[1] for x in first), sum(x.shape[1] for x in second)),
        divergences(first, second, experts, seed),
        means,
        by_chance,
    )
