"""Do experts know the task, or the token? Mutual information against shuffled labels, by layer.

Held-out conversations of several tasks, the same number each at every effort, are read with what
the assistant should say (teacher forcing). Counted are the tokens from the first question on, since
the messages before it are the same for all; each of a token's expert slots counts as one
observation. Tasks are shuffled over conversations, what a token is over the tokens of its own
conversation. Tasks differ in their tokens, so `task_given_token` asks what the expert says about
the task where the kind of token is known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from oss_lab.analysis.statistics.information import (
    Information,
    count,
    entropy,
    information,
    shuffled_groups,
    shuffled_within,
)
from oss_lab.harmony.messages import EFFORTS
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import drawn, read_from_question
from oss_lab.nano.studies.token_kinds import field_of, kind_of
from oss_lab.nano.suite import rule_against_5
from oss_lab.nano.tasks import Task
from oss_lab.nano.tasks.lists import Lists
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.mix import FREE_TEXT
from oss_lab.nano.tasks.settings import Setting, calculator, plain
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import progress

TASKS: dict[str, tuple[Task, Callable[[Random], Setting]]] = {
    "product": (Products(), plain),
    "sum": (Sums(), plain),
    "look-up": (Lookup(), plain),
    "list": (Lists(), plain),
    "free text": (FREE_TEXT, plain),
    "sum, calculator": (Sums(), calculator),
    "sum, rule against 5": (Sums(), rule_against_5),
}
SHUFFLES = 100


@dataclass(frozen=True)
class Experts:
    """The experiment on one model; lists have an entry a layer.

    Attributes:
        label_bits: entropy of each label, the most that an expert could tell about it.
        task, token, field: information of the expert about the task, about the kind of token
            (digit, operator, newline, word, other, structure) and about its place in Harmony.
        load: the busiest expert's share over an even one.
        share: by task, the share of its slots that each expert has [layer expert].
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
    """What was read: for every token its experts, conversation, kind and place in Harmony."""

    ids: Int[ndarray, "layer token slot"]
    conversation: Int[ndarray, "token"]
    kind: list[str]
    field: list[str]
    task: Int[ndarray, "conversation"]


def measure(lab: Lab, n: int, seed: int, shuffles: int = SHUFFLES) -> Experts:
    """Read n conversations of each task."""
    seen = observe(lab, n, seed)
    experts, group = lab.config.num_experts, seen.conversation
    task, kind, field = seen.task[group], numbered(seen.kind), numbered(seen.field)
    by_task = shuffled_groups(seen.task, group)

    def bits(labels, shuffle, given=None) -> list[Information]:
        return information(
            seen.ids, labels, shuffle, experts, given=given, shuffles=shuffles, seed=seed
        )

    tables = np.stack([count(ids, task, np.zeros_like(task), experts)[0] for ids in seen.ids])
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
        token=bits(kind, shuffled_within(kind, group)),
        field=bits(field, shuffled_within(field, group)),
        load=(loads.max(1) * experts).tolist(),
        share={name: shares[:, t].round(4).tolist() for t, name in enumerate(TASKS)},
    )


def observe(lab: Lab, n: int, seed: int) -> Observed:
    """Read the conversations, task by task."""
    ids, group, kinds, fields, tasks = [], list[int](), list[str](), list[str](), list[int]()
    for t, (name, (task, setting)) in enumerate(progress(TASKS.items(), "experts", leave=True)):
        rng = Random(f"{seed}/experts/{name}")
        for k, problem in enumerate(drawn(task, n, rng, setting)):
            conversation = problem.conversation(EFFORTS[k % len(EFFORTS)])
            rendered, kept = read_from_question(lab, conversation)
            chosen = lab.trace(rendered.tokens, ["moe.expert_ids"])["moe.expert_ids"]
            ids.append(chosen[:, kept].values.astype(np.int64))
            group += [len(tasks)] * len(kept)
            kinds += [kind_of(rendered.source(p), rendered.annotations[p]) for p in kept]
            fields += [field_of(conversation, rendered.annotations[p]) for p in kept]
            tasks.append(t)
    return Observed(np.concatenate(ids, 1), np.array(group), kinds, fields, np.array(tasks))


def numbered(labels: list[str]) -> Int[ndarray, "token"]:
    return np.unique(np.array(labels), return_inverse=True)[1]
