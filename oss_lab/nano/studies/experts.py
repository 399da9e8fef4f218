"""Do experts depend on the task or on the token? Mutual information against shuffled labels.

The model reads held-out conversations with the right replies (teacher forcing): the same number of
each task, spread evenly over the efforts. Only tokens from the first question on count, since the
messages before are the same for all. Each expert slot of a token is one observation. For the null,
task labels are shuffled between conversations, and token labels within each conversation. Tasks
differ in their tokens, so `task_given_token` measures the information about the task if the kind of
token is already known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from oss_lab.analysis.statistics.information import (
    Information,
    build_group_shuffle,
    build_within_shuffle,
    count_choices,
    entropy,
    information,
)
from oss_lab.harmony.messages import EFFORTS
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import draw_problems, render_from_question
from oss_lab.nano.studies.token_kinds import classify_field, classify_kind
from oss_lab.nano.suite import make_rule_against_5
from oss_lab.nano.tasks import Task
from oss_lab.nano.tasks.lists import Lists
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.mix import FREE_TEXT
from oss_lab.nano.tasks.settings import Setting, make_calculator, make_plain
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import track_progress

TASKS: dict[str, tuple[Task, Callable[[Random], Setting]]] = {
    "product": (Products(), make_plain),
    "sum": (Sums(), make_plain),
    "look-up": (Lookup(), make_plain),
    "list": (Lists(), make_plain),
    "free text": (FREE_TEXT, make_plain),
    "sum, calculator": (Sums(), make_calculator),
    "sum, rule against 5": (Sums(), make_rule_against_5),
}
SHUFFLES = 100


@dataclass(frozen=True)
class Experts:
    """The experiment on one model; lists have one entry per layer.

    Attributes:
        label_bits: entropy of each label, an upper bound of the information about it.
        task, token, field: information of the expert about the task, about the kind of token
            (digit, operator, newline, word, other, structure), and about its place in the Harmony
            format.
        task_given_token: information about the task if the kind of token is known.
        load: the busiest expert's share relative to an even share.
        share: by task, the share of the task's slots that each expert has [layer expert].
    """

    seed: int
    conversations: int
    tokens: int
    shuffles: int
    label_bits: dict[str, float]
    task: list[Information]
    task_given_token: list[Information]
    token: list[Information]
    field: list[Information]
    load: list[float]
    share: dict[str, list[list[float]]]


@dataclass(frozen=True)
class Observed:
    """For every token read: its experts, conversation, kind, and place in the Harmony format."""

    ids: Int[ndarray, "layer token slot"]
    conversation: Int[ndarray, "token"]
    kind: list[str]
    field: list[str]
    task: Int[ndarray, "conversation"]


def study_experts(lab: Lab, n: int, seed: int, shuffles: int = SHUFFLES) -> Experts:
    """Read n conversations of each task and compute the information."""
    seen = observe_routing(lab, n, seed)
    experts, group = lab.config.num_experts, seen.conversation
    task, kind, field = seen.task[group], number_labels(seen.kind), number_labels(seen.field)
    by_task = build_group_shuffle(seen.task, group)

    def bits(labels, shuffle, given=None) -> list[Information]:
        return information(
            seen.ids, labels, shuffle, experts, given=given, shuffles=shuffles, seed=seed
        )

    tables = np.stack(
        [count_choices(ids, task, np.zeros_like(task), experts)[0] for ids in seen.ids]
    )
    shares = tables / tables.sum(2, keepdims=True)  # layer task expert
    loads = tables.sum(1) / tables.sum((1, 2))[:, None]
    labels = {"task": task, "token": kind, "field": field}
    return Experts(
        seed,
        len(seen.task),
        len(group),
        shuffles,
        {name: entropy(np.bincount(each)) for name, each in labels.items()},
        task=bits(task, by_task),
        task_given_token=bits(task, by_task, kind),
        token=bits(kind, build_within_shuffle(kind, group)),
        field=bits(field, build_within_shuffle(field, group)),
        load=(loads.max(1) * experts).tolist(),
        share={name: shares[:, t].round(4).tolist() for t, name in enumerate(TASKS)},
    )


def observe_routing(lab: Lab, n: int, seed: int) -> Observed:
    """Read the conversations, task by task."""
    ids, group, kinds, fields, tasks = [], list[int](), list[str](), list[str](), list[int]()
    for t, (name, (task, setting)) in enumerate(
        track_progress(TASKS.items(), "experts", leave=True)
    ):
        rng = Random(f"{seed}/experts/{name}")
        for k, problem in enumerate(draw_problems(task, n, rng, setting)):
            conversation = problem.conversation(EFFORTS[k % len(EFFORTS)])
            rendered, kept = render_from_question(lab, conversation)
            chosen = lab.trace(rendered.tokens, ["moe.expert_ids"])["moe.expert_ids"]
            ids.append(chosen[:, kept].values.astype(np.int64))
            group += [len(tasks)] * len(kept)
            kinds += [classify_kind(rendered.source(p), rendered.annotations[p]) for p in kept]
            fields += [classify_field(conversation, rendered.annotations[p]) for p in kept]
            tasks.append(t)
    return Observed(np.concatenate(ids, 1), np.array(group), kinds, fields, np.array(tasks))


def number_labels(labels: list[str]) -> Int[ndarray, "token"]:
    return np.unique(np.array(labels), return_inverse=True)[1]
