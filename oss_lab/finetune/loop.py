"""The training loop: every step writes a line of the log, and some save the state.

The recipe determines the whole run. A stopped run resumes from its last saved state, and ends with
the same weights, bit for bit, as a run without the stop. Small models on a CPU train pieces of a
batch in parallel, with one thread each, so the number of threads changes no bit either. Large
models have one worker with all threads: there, and on other processors, sums may round differently.
"""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from oss_lab.errors import LabError
from oss_lab.finetune.examples import Example
from oss_lab.finetune.log import LOG, FinetuneStep, append_line, truncate_log
from oss_lab.finetune.schedule import learning_rate, plan_steps
from oss_lab.finetune.steps import Trainee, Update, update
from oss_lab.nano.training.state import load_state, save_state

STATE = "state.safetensors"


def train(
    trainee: Trainee,
    examples: Sequence[Example],
    folder: Path,
    *,
    save_every: int,
    workers: int,
    threads: int,
) -> Iterator[FinetuneStep]:
    """Start or resume the run in `folder`; yields each step that is left.

    Args:
        workers: how many pieces of a batch are computed at once.
        threads: the threads of each worker.

    Raises:
        LabError: the state or the log in the folder cannot be used, or the loss is not finite.
    """
    recipe, state, log = trainee.recipe, folder / STATE, folder / LOG
    steps = plan_steps(examples, recipe)
    optimizers = [trainee.optimizer]
    first = load_state(state, trainee.lora, optimizers, {}) if state.exists() else 0
    truncate_log(log, first)
    with ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        for step in range(first, len(steps)):
            began = time.perf_counter()
            rate = learning_rate(recipe, step, len(steps))
            rows = [[examples[n] for n in row] for row in steps[step]]
            measured = update(trainee, rows, rate, pool)
            check_finite(step, measured)
            seconds = time.perf_counter() - began
            done = FinetuneStep(
                step=step,
                loss=measured.loss,
                learnt_tokens=measured.learned,
                tokens=measured.tokens,
                gradient_norm=round(measured.gradient_norm, 4),
                learning_rate=rate,
                seconds=round(seconds, 3),
                tokens_per_second=round(measured.tokens / seconds, 1),
            )
            append_line(log, done)
            if (step + 1) % save_every == 0 or step + 1 == len(steps):
                save_state(state, trainee.lora, optimizers, {}, step + 1)
            yield done


def check_finite(step: int, measured: Update) -> None:
    """Raise LabError if the weights are lost."""
    if not math.isfinite(measured.loss + measured.gradient_norm):
        raise LabError(
            f"step {step} has the loss {measured.loss:g} and the gradient norm"
            f" {measured.gradient_norm:g}; start again in another folder with a lower learning rate"
        )
