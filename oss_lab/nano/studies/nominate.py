"""Experts that one task uses beyond another: listed by the atlas, then tried on a few problems."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from oss_lab.analysis.routing.atlas import Atlas
from oss_lab.analysis.routing.corpus import Corpus, routing_corpus
from oss_lab.analysis.statistics.paired import Interval
from oss_lab.lab import Lab
from oss_lab.nano.studies.knock_out import EFFORT, Cost, Marks, Problems, cost
from oss_lab.nano.studies.problems import read_from_question
from oss_lab.progress import progress

SHORTLIST = 10  # experts that the atlas lists for a task


@dataclass(frozen=True)
class Nominee:
    """An expert that the atlas lists for the target.

    Attributes:
        load: its share of the layer's slots over an even share.
        lift: how much likelier its slots are the target's than all slots are.
        beyond: its share of the target's slots less that of the spared task's, over an even share.
        cost: on the screening problems.
    """

    load: float
    lift: float
    lift_interval: Interval
    beyond: float
    cost: Cost


def read(lab: Lab, problems: Problems) -> Corpus:
    """The routing of each problem from the question on, with what the assistant should say."""
    traces, groups = [], list[str]()
    for name, each in problems.items():
        for problem in progress(each, f"routing, {name}", leave=True):
            conversation = problem.conversation(EFFORT)
            rendered, kept = read_from_question(lab, conversation)
            traces.append(lab.trace(rendered.tokens, ["moe.expert_ids"], positions=kept))
            groups.append(name)
    return routing_corpus(traces, lab.config.num_experts, groups)


def beyond(use: Atlas, target: str, spared: str) -> Float[ndarray, "layer expert"]:
    """Share of the target's slots less that of the spared task's, over an even share.

    An expert's share of a task's slots is its load times its lift for the task; idle ones get
    -inf.
    """
    lift = use.groups.lift.value
    a, b = (use.groups.names.index(name) for name in (target, spared))
    more = use.load.value * (lift[..., a] - lift[..., b])
    return np.where(np.isnan(more), -np.inf, more)


def screened(
    lab: Lab, use: Atlas, target: str, spared: str, problems: Problems, whole: Marks
) -> list[Nominee]:
    """The experts that the atlas lists for the target, each tried; `whole` is the whole model's."""
    more, lift, load = beyond(use, target, spared), use.groups.lift, use.load.value
    label = use.groups.names.index(target)
    order = np.argsort(-more, axis=None, kind="stable")[:SHORTLIST].tolist()
    found: list[Nominee] = []
    for place in progress(order, f"screening, {target}", leave=True):
        layer, expert = divmod(place, more.shape[1])
        at = layer, expert, label
        found.append(
            Nominee(
                float(load[layer, expert]),
                float(lift.value[at]),
                (float(lift.low[at]), float(lift.high[at])),
                float(more[layer, expert]),
                cost(lab, layer, expert, problems, whole, target, spared),
            )
        )
    return found
