"""Is there an expert that one task needs and another does not?

Products and sums, which are written with much the same tokens, so that an expert of one is not
just an expert of its words. Of n held-out problems of each, no two alike, one half chooses:
the atlas lists the experts that one task uses most beyond the other, and of these the one is
nominated whose knock-out costs the one task most beyond the other. The other half confirms.
Which tasks, and how many experts are listed, was settled on other draws.

A knock-out multiplies the expert's output by 0 (`AblateExpert`): what is lost is what this expert
said, and nothing else comes in its place. `forbidden` has the next best chosen instead
(`BanExpert`), and tells whether another can stand in.

The null: every other expert of the layer is knocked out as well. Any knock-out may do harm, so
what is compared is how much more one task falls than the other.
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
    Cost,
    Drop,
    Marks,
    Problems,
    Said,
    cost,
    drops,
    instead,
    solved,
)
from oss_lab.nano.studies.nominate import Nominee, read, screened
from oss_lab.nano.suite import Row
from oss_lab.nano.tasks import Task
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.progress import progress

TASKS: dict[str, Task] = {"product": Products(lengths=(3, 2)), "sum": Sums()}
DIRECTIONS = (("product", "sum"), ("sum", "product"))
SCREEN = 20  # problems of each task on which they are tried
NULL = 40  # problems of each task for every expert of a layer
EXAMPLES = 5
MARGIN = 0.1  # below which the drop of a spared task has to stay


@dataclass(frozen=True)
class Found:
    """One direction: the expert nominated as needed by `target` and not by `spared`.

    Attributes:
        changed: norm of the change of the layer's expert weights, over their norm.
        without, forbidden: by task, with its output taken away and with another in its place.
        commonest: what is said most often to the target's lost problems, and to how many.
        examples: the first few of these.
        contrast: drop of the target less that of the spared task.
        own, others: the null: what this expert and all others of the layer cost, on the same
            problems.
        loads: of the layer's experts, by number.
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
    examples: list[Said]
    contrast: float
    contrast_interval: Interval
    own: Cost
    others: list[Cost]
    loads: list[float]
    chance: float
    selective: bool


@dataclass(frozen=True)
class Selective:
    """The experiment in both directions; problems are counted for each task."""

    effort: Effort
    seed: int
    chosen_on: int
    screened_on: int
    confirmed_on: int
    null_on: int
    margin: float
    found: list[Found]


def measure(lab: Lab, n: int, seed: int) -> Selective:
    """Choose on half of n held-out problems of each task, and confirm on the others.

    Raises:
        LabError: there are too few problems for two halves.
    """
    if n < 4:
        raise LabError(f"n is {n}; it must be 4 or more, half to choose on and half to confirm")
    drawn = {
        name: Row(task, most=n).problems(f"selective/{name}", n, seed)
        for name, task in TASKS.items()
    }
    choosing, fresh = part(drawn, 0, n // 2), part(drawn, n // 2, n)
    use = atlas(read(lab, choosing), seed=seed)
    screen, null = part(choosing, 0, SCREEN), part(fresh, 0, NULL)
    whole_screen, whole_fresh = solved(lab, screen), solved(lab, fresh)
    found: list[Found] = []
    for target, spared in DIRECTIONS:
        listed = screened(lab, use, target, spared, screen, whole_screen)
        found.append(confirmed(lab, use, target, spared, listed, fresh, null, whole_fresh))
    sizes = (min(map(len, each.values())) for each in (choosing, screen, fresh, null))
    chosen_on, screened_on, confirmed_on, null_on = sizes
    return Selective(
        EFFORT, seed, chosen_on, screened_on, confirmed_on, null_on, MARGIN, found
    )  # fmt: skip


def part(problems: Problems, begin: int, end: int) -> Problems:
    return {name: each[begin:end] for name, each in problems.items()}


def confirmed(
    lab: Lab,
    use: Atlas,
    target: str,
    spared: str,
    listed: list[Nominee],
    fresh: Problems,
    null: Problems,
    whole: Marks,
) -> Found:
    """The nominated expert's drops on fresh problems, and what all of its layer cost.

    Args:
        null: the first of the fresh problems.
        whole: what the whole model gets right of the fresh problems.
    """
    best = max((each.cost for each in listed), key=lambda each: each.contrast)
    layer, expert = best.layer, best.expert
    silence = AblateExpert(layer=layer, expert=expert)
    without, changed = drops(lab, silence, fresh, whole)
    lost = instead(lab, silence, fresh[target], whole[target])
    finals = Counter(each.final.strip() for each in lost)
    forbidden, _ = drops(lab, BanExpert(layer=layer, expert=expert), fresh, whole)
    a, b = without[target], without[spared]
    falls, stays = a.accuracy.difference, b.accuracy.difference
    known = {name: whole[name][: len(each)] for name, each in null.items()}
    others = [
        cost(lab, layer, each, null, known, target, spared)
        for each in progress(range(lab.config.num_experts), f"null, {target}", leave=True)
    ]
    own = others.pop(expert)
    as_large = sum(each.contrast >= own.contrast for each in others)
    return Found(
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
