"""Lesson 17: teach nano a new task with LoRA, and measure what becomes of the old ones.

Every run has the same number of steps of the same size. The conditions differ in the learning rate,
in the examples (new ones only, or as many of nano's own training), and in the matrices that are
trained. Everything is measured before and after on the same problems.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.atomic import write_text
from oss_lab.course.labs.finetune.data import LENGTH, NAME, draw_new, mix_examples
from oss_lab.course.labs.finetune.experts import compare_choices, measure_change
from oss_lab.evaluation.question import Question
from oss_lab.evaluation.run import answer_questions
from oss_lab.finetune import Finetuned, finetune
from oss_lab.finetune.lora import count_trained
from oss_lab.finetune.recipe import make_recipe
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab, load
from oss_lab.nano.suite import SUITE

STEPS, BATCH = 120, 4  # rows of LENGTH tokens
NEW = 1000  # different examples of the new task
N, FEWER = 300, 100  # problems of an old row: for the first seed, for the others
REPLY = 160  # tokens; nano needs at most 131 for these rows
HIGH = (
    "product 3x1 digits",
    "sum 2 terms, 3 digits",
    "look-up beyond the window",
    "list",
    "calculator, arithmetic",
    "rule against 5, sum",
    "follow-up",
    "out of reach",
    "small talk",
)
LOW = ("sum 2 terms, 3 digits", "list", "calculator, arithmetic")
ROWS: dict[str, tuple[str, Effort]] = {
    **{f"{name}, high": (name, "high") for name in HIGH},
    **{f"{name}, low": (name, "low") for name in LOW},
}
"""The old rows: each is a row of nano's own suite at one effort."""
TRIED = (
    "1e-3, new only, 96 steps of 32 rows of 128 tokens: new 208 of 300, sums 275 of 300",
    "3e-3, new only, 189 steps of that size: new 300 of 300, sums 3 of 300",
    "1e-3, new only, 20 steps of this size: new 0 of 300",
    "3e-3, new only, these steps: new 97 of 100, sums 6 of 60",
    "3e-3, half old, these steps: new 69 of 100, sums 60 of 60",
)
"""All runs before the settings were fixed, each with one seed; sums are of two terms."""
Marks = dict[str, str]
"""For each row one letter per problem: 1 is right, 0 is wrong."""


@dataclass(frozen=True)
class Condition:
    """What a run does differently: the old examples, the peak learning rate, the matrices."""

    old: int = 0
    rate: float = 3e-3
    targets: str = "all"
    is_repeated: bool = False


CONDITIONS = {
    "new only, slow": Condition(rate=1e-3, is_repeated=True),
    "new only": Condition(is_repeated=True),
    "half old": Condition(old=NEW, is_repeated=True),
    "attention only": Condition(targets="attention"),
    "experts only": Condition(targets="experts"),
    "router only": Condition(targets="router"),
}
"""`is_repeated`: with three seeds."""


def train(condition: Condition, seed: int, folder: Path, steps: int = STEPS) -> Finetuned:
    """Fine-tune nano under a condition; the LoRA files are in `folder`."""
    examples = mix_examples(NEW, condition.old, seed)
    return finetune(
        "nano", examples, folder, steps=steps, batch=BATCH, rows=BATCH, length=LENGTH, seed=seed,
        learning_rate=condition.rate, targets=condition.targets,
    )  # fmt: skip


def grade(lab: Lab, problems: Sequence[Question], effort: Effort) -> str:
    """One letter per problem: 1 is right, 0 is wrong."""
    outcomes = answer_questions(lab, problems, effort, batch=128, max_tokens=REPLY, seed=0)
    right = {outcome.index: outcome.right for outcome in outcomes}
    return "".join(str(int(right[n])) for n in range(len(problems)))


def grade_all(lab: Lab, new: int = N, old: int = N) -> Marks:
    """The marks of the new task at low effort, and of every old row with at most `old` problems."""
    marks = {NAME: grade(lab, draw_new(new, 0, "held_out"), "low")}
    for row, (name, effort) in ROWS.items():
        marks[row] = grade(lab, SUITE[name].draw_problems(name, old, 0), effort)
    return marks


def measure_run(name: str, seed: int, n: int, steps: int = STEPS) -> dict[str, Any]:
    """Train under one condition; what it learned, what it forgot and which experts moved."""
    began, condition = time.process_time(), CONDITIONS[name]
    with tempfile.TemporaryDirectory(prefix="lab-17-") as folder:
        tuned = train(condition, seed, Path(folder) / "run", steps)
        trained, lab = time.process_time(), tuned.lab
        marks = grade_all(lab, N, n)
        ended = time.process_time()
    return {
        "condition": name,
        "seed": seed,
        "marks": marks,
        "loss": shorten([step.loss for step in tuned.steps]),
        "tokens": sum(step.tokens for step in tuned.steps),
        "change": measure_change(lab),
        "choices": compare_choices(lab),
        "seconds": {"training": round(trained - began, 1), "grading": round(ended - trained, 1)},
    }


def shorten(losses: Sequence[float], width: int = 5) -> list[float]:
    """Means of neighboring steps."""
    groups = [losses[n : n + width] for n in range(0, len(losses), width)]
    return [round(sum(group) / len(group), 4) for group in groups]


def measure_before() -> dict[str, Any]:
    """The same of nano as it is shipped."""
    nano, began = load("nano", kernels="reference", verbose=False), time.process_time()
    marks = grade_all(nano)
    seconds = {"grading": round(time.process_time() - began, 1)}
    return {"marks": marks, "choices": compare_choices(nano), "seconds": seconds}


def list_runs(seed: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every measurement by name: nano before, every condition, the main ones with more seeds."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {"before": measure_before}
    for other in (seed, seed + 1, seed + 2):
        for name, condition in CONDITIONS.items():
            if other == seed or condition.is_repeated:
                n = N if other == seed else FEWER
                runs[f"{name}, seed {other}"] = partial(measure_run, name, other, n)
    return runs


def keep(folder: Path, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `compute` returns, kept in a file: a stopped experiment resumes after its last run."""
    file = folder / f"{name.replace(', ', '_').replace(' ', '_')}.json"
    if not file.exists():
        found = compute()
        folder.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(found))
        print(
            f"{name}: {found['marks'][NAME].count('1')} of {N} new; {found['seconds']}", flush=True
        )
    return json.loads(file.read_text("utf-8"))


def measure(seed: int) -> dict[str, Any]:
    """The whole experiment. Finished runs are kept in the folder for temporary files, until all
    are: the next experiment must not find runs of an older version.
    """
    folder = Path(tempfile.gettempdir()) / f"oss-lab-17-finetune-{seed}"
    found = {name: keep(folder, name, compute) for name, compute in list_runs(seed).items()}
    seconds = sum(sum(each["seconds"].values()) for each in found.values())
    before = found.pop("before")
    shutil.rmtree(folder)
    return {
        "cpu_minutes": round(seconds / 60, 1),
        "settings": describe_settings(),
        "before": before,
        "runs": list(found.values()),
    }


def describe_settings() -> dict[str, Any]:
    """The settings of all runs, and how many numbers each condition trains."""
    config = load("nano", verbose=False).config
    trained = {
        name: count_trained(config, make_recipe(config, targets=each.targets))
        for name, each in CONDITIONS.items()
    }
    return {
        "steps": STEPS,
        "batch": BATCH,
        "length": LENGTH,
        "new": NEW,
        "conditions": {name: asdict(each) for name, each in CONDITIONS.items()},
        "trained": trained,
        "reply_tokens": REPLY,
        "tried_before": TRIED,
    }
