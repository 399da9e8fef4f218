"""What does the effort change? Tokens by channel, accuracy, and the experts used, for each task.

n held-out problems of each task are asked at each effort, greedily. One in five of the replies is
traced for its experts. Their use is compared between two efforts in three parts:

    reply      everything that the assistant wrote. The kinds of token differ between efforts (low
               has no analysis), so this comparison mostly shows the difference in text.
    final      the tokens of the final answer, if it is the same at both efforts. The tokens are
               equal, but the text before them is not.
    question   the tokens of the user's message. Tokens and positions are equal, and so is the text
               before them, except for the one word of the effort.

Equal tokens differ little by chance. For `final` and `question`, the relevant null is therefore the
one that swaps problems.
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
from oss_lab.nano.studies.divergence import Chosen, Divergence, measure_divergences, share_moved
from oss_lab.nano.studies.problems import draw_problems, reply_to_problems
from oss_lab.nano.tasks import Problem, Task
from oss_lab.nano.tasks.lists import Lists
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.mix import FREE_TEXT
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import track_progress
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import count_channel_tokens, find_content_tokens, label_reply

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
    """The replies to one task at one effort.

    Attributes:
        accuracy: right replies; one truncated by MAX_TOKENS is wrong.
        cut_off: the number of truncated replies.
        tokens: mean number by channel; `format` counts tokens that are not content.
    """

    effort: Effort
    accuracy: Share
    cut_off: int
    tokens: dict[str, Mean]


@dataclass(frozen=True)
class EffortComparison:
    """Two efforts compared on the tokens of one part.

    Attributes:
        problems: the number of problems compared.
        tokens: the number of tokens at each of the two efforts.
        divergence: of the use of experts, one per layer.
        moved: the share of a token's experts that change with the effort, one per layer; None if
            the tokens are not equal.
        moved_by_chance: the same between randomly paired tokens of the part.
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
    """The experiment on one task; `routed` is the number of problems traced for their experts."""

    task: str
    seed: int
    n: int
    routed: int
    by_effort: list[AtEffort]
    compared: list[EffortComparison]


@dataclass(frozen=True)
class RoutedPart:
    """The tokens of one part of one reply, and their experts."""

    tokens: list[int]
    chosen: Chosen


def study_effort(lab: Lab, n: int, seed: int) -> list[Efforts]:
    """Ask n problems of each task at each effort."""
    found: list[Efforts] = []
    for name, task in track_progress(TASKS.items(), "effort", leave=True):
        problems = draw_problems(task, n, Random(f"{seed}/effort/{name}"))
        replies = {effort: reply_to_problems(lab, problems, effort) for effort in EFFORTS}
        some = max(1, n // ONE_IN)
        parts: dict[Effort, list[dict[Part, RoutedPart]]] = {
            e: [trace_parts(lab, reply) for reply in replies[e][:some]] for e in EFFORTS
        }
        by_effort = [summarize_replies(lab, problems, replies[e], e, seed) for e in EFFORTS]
        compared = [
            each
            for pair in combinations(EFFORTS, 2)
            for part in ("reply", *MATCHED)
            if (each := compare_efforts(lab, parts, pair, part, seed)) is not None
        ]
        found.append(Efforts(name, seed, n, some, by_effort, compared))
    return found


def summarize_replies(
    lab: Lab, problems: Sequence[Problem], replies: Sequence[Reply], effort: Effort, seed: int
) -> AtEffort:
    """Accuracy and token counts of the replies at one effort."""
    counted = [count_channel_tokens(reply, lab.tokenizer) for reply in replies]
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


def trace_parts(lab: Lab, reply: Reply) -> dict[Part, RoutedPart]:
    """The experts of each part of a reply and its prompt."""
    labels, first = label_reply(reply, lab.tokenizer), len(reply.prompt_tokens)
    trace = lab.trace(reply, ["moe.expert_ids"])
    chosen = trace["moe.expert_ids"].values.astype(np.int64)
    places: dict[Part, list[int]] = {
        "reply": list(range(first, len(labels))),
        "final": [p for p in find_content_tokens(labels, "final") if p >= first],
        "question": [
            p for p in range(first) if (labels[p].role, labels[p].part) == ("user", "content")
        ],
    }
    return {
        part: RoutedPart([trace.tokens[p] for p in where], chosen[:, where])
        for part, where in places.items()
    }


def compare_efforts(
    lab: Lab,
    parts: Mapping[Effort, Sequence[Mapping[Part, RoutedPart]]],
    efforts: tuple[Effort, Effort],
    part: Part,
    seed: int,
) -> EffortComparison | None:
    """Compare two efforts on one part; None if no problem has it at both."""
    pairs = [(a[part], b[part]) for a, b in zip(*(parts[e] for e in efforts), strict=True)]
    matched, experts = part in MATCHED, lab.config.num_experts
    pairs = [(a, b) for a, b in pairs if a.tokens and (not matched or a.tokens == b.tokens)]
    if not pairs:
        return None
    first, second = ([pair[side].chosen for pair in pairs] for side in (0, 1))
    means = by_chance = None
    if matched:
        by_problem = [
            share_moved(a, b, experts).mean(0) for a, b in zip(first, second, strict=True)
        ]
        means = [Mean.of(layer, seed) for layer in np.stack(by_problem, 1)]
        a, b = np.concatenate(first, 1), np.concatenate(second, 1)
        order = np.random.default_rng(seed).permutation(b.shape[1])
        by_chance = share_moved(a, b[:, order], experts).mean(0).tolist()
    return EffortComparison(
        efforts,
        part,
        len(pairs),
        (sum(x.shape[1] for x in first), sum(x.shape[1] for x in second)),
        measure_divergences(first, second, experts, seed),
        means,
        by_chance,
    )
