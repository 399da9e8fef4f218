"""What do the full layers do? Look-ups with the same weights, the full layers cut to the window.

Beyond the window, the asked word and its number stand more than a window before the answer. Within
it, question and answer fit into one window, which they do at low effort only: the control for a
model that is merely broken by the cut. Chance is to name one of the numbers listed. Layers of
windows reach further than one window, a window a layer, but these weights were trained with full
layers between.
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
from oss_lab.nano.studies.problems import drawn, marks, read_from_question
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.progress import progress

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
        tokens: the least and the most from the first pair to the answer, both included, at low.
        accuracy: first the intact model, second the one cut to the window.
        chance_listed: of naming one of the numbers listed.
    """

    where: str
    effort: Effort
    seed: int
    tokens: tuple[int, int]
    accuracy: Paired
    chance_listed: float


def measure(lab: Lab, folder: Path, n: int, seed: int) -> list[Window]:
    """n look-ups of each kind; `folder` is the checkpoint of `lab`."""
    cut = cut_to_window(lab, folder)
    found: list[Window] = []
    todo: list[tuple[str, Effort]] = [
        (where, effort) for where in TASKS for effort in EFFORTS[where]
    ]
    for where, effort in progress(todo, "window", leave=True):
        problems = drawn(TASKS[where], n, Random(f"{seed}/window/{where}"))
        spans = [span(lab, problem) for problem in problems]
        accuracy = Paired.of(marks(lab, problems, effort), marks(cut, problems, effort))
        chance = sum(1 / pairs(problem) for problem in problems) / n
        found.append(Window(where, effort, seed, (min(spans), max(spans)), accuracy, chance))
    return found


def cut_to_window(lab: Lab, folder: Path) -> Lab:
    """The same weights with a sliding window in every layer."""
    checkpoint = find_checkpoint(folder)
    config = replace(
        checkpoint.config, layer_types=("sliding_attention",) * checkpoint.config.num_hidden_layers
    )
    model = load_model(replace(checkpoint, config=config), device=lab.model.device)
    return Lab(model, lab.tokenizer, GREEDY, effort=lab.effort)


def pairs(problem: Problem) -> int:
    """How many words the question lists."""
    return problem.question.split(".")[0].count(",") + 1


def span(lab: Lab, problem: Problem) -> int:
    """Tokens from the beginning of the question to the last digit of the answer, at low effort."""
    conversation = problem.conversation("low")
    rendered, asked = read_from_question(lab, conversation)
    places = [place for place in asked if rendered.annotations[place].field == "content"]
    return places[-1] - places[0] + 1
