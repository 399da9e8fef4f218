"""What do the full-attention layers do? Look-ups with a sliding window in every layer.

In `beyond`, the word and its number are more than a window before the answer. In `within`, question
and answer fit into one window, which is only possible at low effort. It is the control: a model
that is broken as a whole would fail here too. Chance is a random guess among the listed numbers. A
stack of windowed layers can reach farther, one window per layer, but these weights were trained
with full layers in between.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from oss_lab.analysis.statistics.shares import Paired
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import load_model
from oss_lab.engine.sampling import GREEDY
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import draw_problems, grade_problems, render_from_question
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.progress import track_progress

TASKS = {
    "beyond": Lookup(filler=(40, 80), asked=1),
    "within": Lookup(pairs=(3, 3), filler=(0, 0), asked=1),
}
EFFORTS: dict[str, tuple[Effort, ...]] = {"beyond": ("low", "high"), "within": ("low",)}


@dataclass(frozen=True)
class Window:
    """One kind of look-up at one effort.

    Attributes:
        where: `beyond` or `within` the window.
        tokens: the smallest and largest number of tokens from the first pair to the end of the
            answer, at low effort.
        accuracy: first of the intact model, then of the one limited to the window.
        chance_listed: the accuracy of a random guess among the listed numbers.
    """

    where: str
    effort: Effort
    seed: int
    tokens: tuple[int, int]
    accuracy: Paired
    chance_listed: float


def study_window(lab: Lab, folder: Path, n: int, seed: int) -> list[Window]:
    """Ask n look-ups of each kind; `folder` is the checkpoint of `lab`."""
    cut = cut_to_window(lab, folder)
    found: list[Window] = []
    todo: list[tuple[str, Effort]] = [
        (where, effort) for where in TASKS for effort in EFFORTS[where]
    ]
    for where, effort in track_progress(todo, "window", leave=True):
        problems = draw_problems(TASKS[where], n, Random(f"{seed}/window/{where}"))
        spans = [measure_span(lab, problem) for problem in problems]
        accuracy = Paired.of(
            grade_problems(lab, problems, effort), grade_problems(cut, problems, effort)
        )
        chance = sum(1 / count_pairs(problem) for problem in problems) / n
        found.append(Window(where, effort, seed, (min(spans), max(spans)), accuracy, chance))
    return found


def cut_to_window(lab: Lab, folder: Path) -> Lab:
    """A lab with the same weights and a sliding window in every layer."""
    checkpoint = find_checkpoint(folder)
    config = replace(
        checkpoint.config, layer_types=("sliding_attention",) * checkpoint.config.num_hidden_layers
    )
    model = load_model(replace(checkpoint, config=config), device=lab.model.device)
    return Lab(model, lab.tokenizer, GREEDY, effort=lab.effort)


def count_pairs(problem: Problem) -> int:
    """The number of words that the question lists."""
    return problem.question.split(".")[0].count(",") + 1


def measure_span(lab: Lab, problem: Problem) -> int:
    """The number of tokens from the start of the question to the end of the answer, at low."""
    conversation = problem.conversation("low")
    rendered, asked = render_from_question(lab, conversation)
    places = [place for place in asked if rendered.annotations[place].field == "content"]
    return places[-1] - places[0] + 1
