"""What does four-bit rounding cost? The MXFP4 checkpoint against the same weights in BF16.

A checkpoint stores its experts in MXFP4 and everything else in BF16. The state of the training run
has all weights in float32. Rounded to BF16, they differ from the checkpoint only in the experts.
Both models get the same held-out problems and compute in the same precision.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from oss_lab.analysis.statistics.shares import Paired
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import grade_problems
from oss_lab.nano.suite import SUITE
from oss_lab.nano.training.loop import load_trained
from oss_lab.nano.training.recipe import RECIPE, STATE, read_recipe
from oss_lab.progress import track_progress

ROWS = (
    "product 3x2 digits",
    "sum 2 terms, 3 digits",
    "difference, 3 digits",
    "sum 5 terms",
    "look-up beyond the window",
    "calculator, arithmetic",
    "rule against 5, sum",
    "out of reach",
)
"""Rows of the evaluation's suite."""


@dataclass(frozen=True)
class Rounding:
    """One kind of problem at one effort; `accuracy` has first MXFP4, then BF16."""

    task: str
    effort: Effort
    seed: int
    accuracy: Paired


def is_run(folder: Path) -> bool:
    """Whether the folder has the recipe and the state of a training run."""
    return (folder / RECIPE).exists() and (folder / STATE).exists()


def study_rounding(lab: Lab, run: Path, n: int, seed: int) -> list[Rounding]:
    """Ask at most n problems of each kind; `run` is the run that `lab` was exported from."""
    exact = load_in_bf16(lab, run)
    found: list[Rounding] = []
    todo: list[tuple[str, Effort]] = [(task, effort) for task in ROWS for effort in EFFORTS]
    for task, effort in track_progress(todo, "rounding", leave=True):
        problems = SUITE[task].draw_problems(task, n, seed)
        accuracy = Paired.of(
            grade_problems(lab, problems, effort), grade_problems(exact, problems, effort)
        )
        found.append(Rounding(task, effort, seed, accuracy))
    return found


def load_in_bf16(lab: Lab, run: Path) -> Lab:
    """The model of the run, with every weight rounded to BF16.

    Raises:
        LabError: the checkpoint was not exported from the last state of this run.
    """
    model = load_trained(read_recipe(run / RECIPE), run).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    model.to(lab.model.device)
    if not torch.equal(model.embedding.weight, lab.model.embedding.weight):
        raise LabError(
            f"the checkpoint was not exported from the last state in {run}; export it again"
        )
    return Lab(model, lab.tokenizer, GREEDY, effort=lab.effort)
