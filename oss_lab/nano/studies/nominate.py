"""Find experts that one task uses more than another: list them by usage, then ablate each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from oss_lab.analysis.routing.atlas import Atlas
from oss_lab.analysis.routing.corpus import Corpus, build_routing_corpus
from oss_lab.analysis.statistics.paired import Interval
from oss_lab.lab import Lab
from oss_lab.nano.studies.knock_out import EFFORT, AblationCost, Marks, Problems, measure_cost
from oss_lab.nano.studies.problems import render_from_question
from oss_lab.progress import track_progress

SHORTLIST = 10  # experts that the atlas lists for a task


@dataclass(frozen=True)
class Nominee:
    """An expert that the target uses more than the spared task.

    Attributes:
        load: its share of the layer's slots, relative to an even share.
        lift: how much more likely its slots belong to the target than slots in general.
        beyond: its share of the target's slots minus that of the spared task's slots, relative to
            an even share.
        cost: of ablating it, on the screening problems.
    """

    load: float
    lift: float
    lift_interval: Interval
    beyond: float
    cost: AblationCost


def trace_routing(lab: Lab, problems: Problems) -> Corpus:
    """The routing of each problem with its right reply, from the question on."""
    traces, groups = [], list[str]()
    for name, each in problems.items():
        for problem in track_progress(each, f"routing, {name}", leave=True):
            conversation = problem.conversation(EFFORT)
            rendered, kept = render_from_question(lab, conversation)
            traces.append(lab.trace(rendered.tokens, ["moe.expert_ids"], positions=kept))
            groups.append(name)
    return build_routing_corpus(traces, lab.config.num_experts, groups)


def usage_difference(use: Atlas, target: str, spared: str) -> Float[ndarray, "layer expert"]:
    """Each expert's share of the target's slots minus that of the spared task's slots, relative to
    an even share.

    The share of a task's slots is load times lift. Experts that are never used get -inf.
    """
    lift = use.groups.lift.value
    a, b = (use.groups.names.index(name) for name in (target, spared))
    more = use.load.value * (lift[..., a] - lift[..., b])
    return np.where(np.isnan(more), -np.inf, more)


def screen_experts(
    lab: Lab, use: Atlas, target: str, spared: str, problems: Problems, whole: Marks
) -> list[Nominee]:
    """The experts that the target uses more than the spared task, with the cost of ablating each.

    `whole` has the right answers of the intact model.
    """
    more, lift, load = usage_difference(use, target, spared), use.groups.lift, use.load.value
    label = use.groups.names.index(target)
    order = np.argsort(-more, axis=None, kind="stable")[:SHORTLIST].tolist()
    found: list[Nominee] = []
    for place in track_progress(order, f"screening, {target}", leave=True):
        layer, expert = divmod(place, more.shape[1])
        at = layer, expert, label
        found.append(
            Nominee(
                float(load[layer, expert]),
                float(lift.value[at]),
                (float(lift.low[at]), float(lift.high[at])),
                float(more[layer, expert]),
                measure_cost(lab, layer, expert, problems, whole, target, spared),
            )
        )
    return found
