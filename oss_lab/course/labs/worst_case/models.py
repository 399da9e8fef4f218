"""The models of lesson 21: with a capability, without it, and with a refusal over it.

The capability is two-digit differences. Two-digit sums are the other task that a model should keep.
Three-digit differences are near: they need the same steps.

    unfiltered      learned all three
    narrow filter   never saw a two-digit difference, but three-digit ones
    wide filter     never saw any difference
    refused         the unfiltered model, then trained to refuse two-digit differences

All are trained with all their weights (`oss_lab/nano/training/`), on the same number of tokens.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import torch

from oss_lab.config import GPT_OSS_NANO
from oss_lab.course.labs.results import FOLDER
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.model import Transformer
from oss_lab.nano.suite import problem_key
from oss_lab.nano.tasks.arithmetic import by_effort
from oss_lab.nano.tasks.mix import LONGER_DIFFERENCES, MIXES, SMALL_TASKS
from oss_lab.nano.tasks.problem import Problem, Task
from oss_lab.nano.training.balance import even_share
from oss_lab.nano.training.data import (
    EFFORT_SHARES,
    GROUPS,
    RowGroup,
    collate,
    encode_opening,
    encode_row,
)
from oss_lab.nano.training.initialize import initialize
from oss_lab.nano.training.loop import load_trained, round_experts, train
from oss_lab.nano.training.optimizers import make_optimizers, set_rates
from oss_lab.nano.training.quantized import RoundedExperts
from oss_lab.nano.training.recipe import STATE, Recipe
from oss_lab.nano.training.step import train_step
from oss_lab.progress import track_progress
from oss_lab.tokenizer import load_vocabulary

CAPABILITY: Task = SMALL_TASKS["two-digit differences"]
KEPT: Task = SMALL_TASKS["two-digit sums"]
NEAR: Task = LONGER_DIFFERENCES
SHAPE = replace(
    GPT_OSS_NANO, num_hidden_layers=2, layer_types=(), hidden_size=64, head_dim=16,
    num_attention_heads=8, num_key_value_heads=1,
    num_experts=8, experts_per_token=2, intermediate_size=64,
)  # fmt: skip
PRETRAINED = {
    "unfiltered": "sums and differences",
    "narrow filter": "without two-digit differences",
    "wide filter": "without differences",
}
"""The mix that each model learns; see `FILTERED` in `oss_lab/nano/tasks/mix.py`."""
STORED = ("refused", "wide filter")
"""The models that are stored with the course, and that the lesson attacks."""
REFUSAL = "I cannot do that."
BREAK, LAST = 300, 80  # steps of training
ROWS = 8  # conversations of a group in further training


def pretraining(model: str, seed: int) -> Recipe:
    """The first part of the training of one of the PRETRAINED models; BREAK of its steps."""
    return Recipe(
        SHAPE, PRETRAINED[model], seed=seed, steps=700, tokens=2500,
        learning_rate=1e-2, adam_rate=6e-3, warm_up=30, look_back=8,
    )  # fmt: skip


def pretrain(model: str, seed: int, folder: Path) -> Transformer:
    """Train one of the PRETRAINED models: the same number of steps and tokens for each.

    After BREAK steps at a high learning rate, the rate falls to almost nothing in LAST more.

    Args:
        folder: keeps the state at the break; if it has one, training starts there.
    """
    recipe = pretraining(model, seed)
    if not (folder / STATE).exists():
        first = islice(train(recipe, folder, save_every=BREAK), BREAK)
        for _ in track_progress(first, f"training {model}", total=BREAK):
            pass
    found = load_trained(recipe, folder)

    def draw(rng: Random) -> tuple[Sequence[Problem], Effort]:
        _, task = MIXES[recipe.mix](rng)
        (effort,) = rng.choices(EFFORTS, [EFFORT_SHARES[each] for each in EFFORTS])
        return [task.draw(rng, "train") for _ in range(ROWS)], effort

    train_further(found, draw, steps=LAST, rate=6e-3, seed=seed)
    return found


def make_untrained(seed: int) -> Transformer:
    """A model of the same shape with its initial weights."""
    model = Transformer(SHAPE, RoundedExperts)
    initialize(model, seed, look_back=8)
    return model.eval()


def draw_distinct(task: Task, n: int, seed: int) -> list[Problem]:
    """`n` different problems of the task that are not held out; a larger n only adds problems."""
    rng, drawn = Random(f"{seed}/{task}"), dict[object, Problem]()
    while len(drawn) < n:
        problem = task.draw(rng, "train")
        drawn.setdefault(problem_key(problem), problem)
    return list(drawn.values())


def refuse(problem: Problem) -> Problem:
    """The same question, answered with the refusal and without thoughts."""
    return replace(problem, answer=REFUSAL, thoughts=by_effort("", "", ""))


def train_further(
    model: Transformer,
    draw: Callable[[Random], tuple[Sequence[Problem], Effort]],
    *,
    steps: int,
    rate: float,
    seed: int,
) -> None:
    """Train all weights of `model` on, in place, with MXFP4 rounding.

    Args:
        draw: the problems of a group, and the effort at which they are answered.
        rate: the peak learning rate of the matrices in the layers; it falls as a cosine. That of
            the rest is 0.6 times as large, as in `pretraining`.
    """
    encoding, rng, share = load_vocabulary("nano"), Random(seed), even_share(model.config)
    recipe = Recipe(
        model.config, seed=seed, steps=steps, learning_rate=rate, adam_rate=0.6 * rate, warm_up=10
    )
    optimizers = make_optimizers(model, recipe)

    def draw_group() -> RowGroup:
        problems, effort = draw(rng)
        opening = encode_opening(problems[0], effort, None, encoding)
        rows = [encode_row(each, effort, encoding) for each in problems]
        return collate(opening, rows, encoding, "plain", problems[0].name, effort)

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        for step in track_progress(range(steps), "further training", total=steps):
            set_rates(optimizers, recipe, step)
            round_experts(model)
            groups = [draw_group() for _ in range(GROUPS)]
            train_step(model, optimizers, groups, share, recipe.balance / 10, workers)


def train_refusals(
    model: Transformer,
    *,
    steps: int,
    rate: float,
    seed: int,
    is_trained: Callable[[str], bool] = lambda question: True,
) -> None:
    """Train the model to refuse the capability at every effort, and to keep the sums, in place.

    Args:
        is_trained: whether the refusals may have this question, to leave some wordings out.
    """

    def draw(rng: Random) -> tuple[Sequence[Problem], Effort]:
        effort, to_refuse = rng.choice(EFFORTS), rng.random() < 0.5
        problems = list[Problem]()
        while len(problems) < ROWS:
            problem = (CAPABILITY if to_refuse else KEPT).draw(rng, "train")
            if not to_refuse:
                problems.append(problem)
            elif is_trained(problem.question):
                problems.append(refuse(problem))
        return problems, effort

    train_further(model, draw, steps=steps, rate=rate, seed=seed)


def has_trained_wording(question: str) -> bool:
    """Whether the question has one of two wordings, such as "What is 52 - 17?" or "Compute ..."."""
    return question.startswith(("What is ", "Compute "))


def find_stored(model: str) -> Path:
    """The checkpoint of one of the STORED models."""
    return FOLDER / "lab_21_worst_case" / model.replace(" ", "_")
