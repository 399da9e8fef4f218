"""Is there an expert that one task needs and another does not?

The tasks are products and sums. They use nearly the same tokens, so an expert for one of them is
not just an expert for its words. n distinct held-out problems of each are split in half. The first
half chooses: the routing atlas lists the experts that one task uses more than the other. Of these,
the expert is nominated whose ablation costs that task most, compared with the other. The second
half confirms. The tasks and the length of the list were decided on other problems.

An ablation multiplies the expert's output by 0 (`AblateExpert`), without a replacement. With
`forbidden`, the router chooses the next best expert instead (`BanExpert`), which shows whether
another expert can replace it.

The null: every other expert of the layer is ablated too. Any ablation may reduce accuracy, so the
study compares how much more one task loses than the other.
"""

from collections import Counter
from dataclasses import dataclass

from oss_lab.analysis.routing.atlas import Atlas, atlas
from oss_lab.analysis.statistics.paired import Interval, contrast_interval
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.interventions import AblateExpert, BanExpert
from oss_lab.lab import Lab
from oss_lab.nano.studies.knock_out import (
    EFFORT,
    AblationCost,
    Drop,
    LostReply,
    Marks,
    Problems,
    collect_lost_replies,
    grade_tasks,
    measure_cost,
    measure_drops,
)
from oss_lab.nano.studies.nominate import Nominee, screen_experts, trace_routing
from oss_lab.nano.suite import SuiteRow
from oss_lab.nano.tasks import Task
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import track_progress

TASKS: dict[str, Task] = {"product": Products(lengths=(3, 2)), "sum": Sums()}
DIRECTIONS = (("product", "sum"), ("sum", "product"))
SCREEN = 20  # problems of each task to try each listed expert on
NULL = 40  # problems of each task to ablate every expert of the layer on
EXAMPLES = 5
MARGIN = 0.1  # the drop of the spared task must be smaller


@dataclass(frozen=True)
class Nomination:
    """One direction: the nominated expert, which `target` should need and `spared` should not.

    Attributes:
        changed: the norm of the change of the layer's expert weights, relative to their norm.
        without, forbidden: by task, with its output ablated and with another expert in its place.
        commonest: the most frequent answer to the target's lost problems, and how often it occurs.
        examples: the first few lost problems.
        contrast: the drop of the target minus that of the spared task.
        own, others: the null: the cost of this expert and of each other one in the layer, on the
            same problems.
        loads: of the layer's experts, by index.
        chance: (1 + others with at least its contrast) / (1 + others).
        selective: the interval of the target's drop is above 0, that of the spared task's below
            `margin`, and no other expert of the layer has as large a contrast.
    """

    target: str
    spared: str
    shortlist: list[Nominee]
    layer: int
    expert: int
    changed: float
    without: dict[str, Drop]
    forbidden: dict[str, Drop]
    commonest: tuple[str, int] | None
    examples: list[LostReply]
    contrast: float
    contrast_interval: Interval
    own: AblationCost
    others: list[AblationCost]
    loads: list[float]
    chance: float
    selective: bool


@dataclass(frozen=True)
class Selective:
    """The experiment in both directions; problem counts are per task."""

    effort: Effort
    seed: int
    chosen_on: int
    screened_on: int
    confirmed_on: int
    null_on: int
    margin: float
    found: list[Nomination]


def study_selective(lab: Lab, n: int, seed: int) -> Selective:
    """Choose on half of n held-out problems of each task, and confirm on the other half.

    Raises:
        LabError: there are too few problems for two halves.
    """
    if n < 4:
        raise LabError(f"n is {n}; it must be 4 or more, half to choose on and half to confirm")
    drawn = {
        name: SuiteRow(task, max_problems=n).draw_problems(f"selective/{name}", n, seed)
        for name, task in TASKS.items()
    }
    choosing, fresh = slice_problems(drawn, 0, n // 2), slice_problems(drawn, n // 2, n)
    use = atlas(trace_routing(lab, choosing), seed=seed)
    screen, null = slice_problems(choosing, 0, SCREEN), slice_problems(fresh, 0, NULL)
    whole_screen, whole_fresh = grade_tasks(lab, screen), grade_tasks(lab, fresh)
    found: list[Nomination] = []
    for target, spared in DIRECTIONS:
        listed = screen_experts(lab, use, target, spared, screen, whole_screen)
        found.append(confirm_expert(lab, use, target, spared, listed, fresh, null, whole_fresh))
    sizes = (min(map(len, each.values())) for each in (choosing, screen, fresh, null))
    chosen_on, screened_on, confirmed_on, null_on = sizes
    return Selective(
        EFFORT, seed, chosen_on, screened_on, confirmed_on, null_on, MARGIN, found
    )  # fmt: skip


def slice_problems(problems: Problems, begin: int, end: int) -> Problems:
    return {name: each[begin:end] for name, each in problems.items()}


def confirm_expert(
    lab: Lab,
    use: Atlas,
    target: str,
    spared: str,
    listed: list[Nominee],
    fresh: Problems,
    null: Problems,
    whole: Marks,
) -> Nomination:
    """The nominated expert's drops on fresh problems, and the cost of every expert in its layer.

    Args:
        null: the first few of the fresh problems.
        whole: which fresh problems the intact model gets right.
    """
    best = max((each.cost for each in listed), key=lambda each: each.contrast)
    layer, expert = best.layer, best.expert
    silence = AblateExpert(layer=layer, expert=expert)
    without, changed = measure_drops(lab, silence, fresh, whole)
    lost = collect_lost_replies(lab, silence, fresh[target], whole[target])
    finals = Counter(each.final.strip() for each in lost)
    forbidden, _ = measure_drops(lab, BanExpert(layer=layer, expert=expert), fresh, whole)
    a, b = without[target], without[spared]
    falls, stays = a.accuracy.difference, b.accuracy.difference
    known = {name: whole[name][: len(each)] for name, each in null.items()}
    others = [
        measure_cost(lab, layer, each, null, known, target, spared)
        for each in track_progress(range(lab.config.num_experts), f"null, {target}", leave=True)
    ]
    own = others.pop(expert)
    as_large = sum(each.contrast >= own.contrast for each in others)
    return Nomination(
        target,
        spared,
        listed,
        layer,
        expert,
        changed,
        without,
        forbidden,
        next(iter(finals.most_common(1)), None),
        lost[:EXAMPLES],
        falls - stays,
        contrast_interval(falls, a.interval, stays, b.interval),
        own,
        others,
        use.load.value[layer].tolist(),
        (1 + as_large) / (1 + len(others)),
        a.interval[0] > 0 and b.interval[1] < MARGIN and not as_large,
    )
