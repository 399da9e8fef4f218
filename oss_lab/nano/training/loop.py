"""The training loop: Muon and AdamW, a cosine schedule, a fading balance loss, MXFP4 at the end.

The `Recipe` determines the whole run. Batches and initial weights depend only on its seed, so the
same versions on the same machine give the same losses. A stopped run resumes from its last saved
state, with the same result as without the stop. Every step writes one line of the log.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from oss_lab.model import Transformer
from oss_lab.nano.training.balance import even_share
from oss_lab.nano.training.data import draw_groups
from oss_lab.nano.training.initialize import initialize
from oss_lab.nano.training.log import (
    LOG,
    TrainingStep,
    append_line,
    refuse_without_state,
    truncate_log,
)
from oss_lab.nano.training.machine import write_machine
from oss_lab.nano.training.optimizers import make_optimizers, set_rates
from oss_lab.nano.training.quantized import RoundedExperts
from oss_lab.nano.training.recipe import STATE, Recipe, balance_weight, is_rounded, write_recipe
from oss_lab.nano.training.state import load_state, load_weights, save_state
from oss_lab.nano.training.step import train_step
from oss_lab.tokenizer import load_vocabulary


def train(
    recipe: Recipe,
    folder: Path,
    device: torch.device | str = "cpu",
    *,
    save_every: int = 100,
    threads: int | None = None,
) -> Iterator[TrainingStep]:
    """Start or resume a training run in `folder`; yields each step. `load_trained` loads the model.

    Groups are processed by `threads` CPU threads, by default one per processor.

    Writes `recipe.json`, `machine.json`, `log.jsonl` and, every `save_every` steps,
    `state.safetensors` to `folder`.

    Raises:
        LabError: the folder holds a run of another recipe, or a run that cannot be resumed.
    """
    threads = threads or os.cpu_count() or 1
    state, log = folder / STATE, folder / LOG
    if not state.exists():
        refuse_without_state(log, min(save_every, recipe.steps))
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, folder)
    encoding = load_vocabulary("nano")
    model = Transformer(recipe.model, RoundedExperts)
    initialize(model, recipe.seed, recipe.look_back)
    model.to(device)
    optimizers = make_optimizers(model, recipe)
    share = even_share(recipe.model).to(device)
    first = load_state(state, model, optimizers, {"share": share}) if state.exists() else 0
    if not first:
        write_machine(folder, threads)
    truncate_log(log, first)
    with ThreadPoolExecutor(
        threads if model.device.type == "cpu" else 1,
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as workers:
        for step in range(first, recipe.steps):
            began = time.perf_counter()
            set_rates(optimizers, recipe, step)
            if is_rounded(recipe, step):
                round_experts(model)
            groups = draw_groups(step, recipe.seed, recipe.tokens, encoding, recipe.mix)
            weight = balance_weight(recipe, step)
            measured = train_step(model, optimizers, groups, share, weight, workers)
            done = TrainingStep(step, **measured, seconds=round(time.perf_counter() - began, 3))
            append_line(log, done)
            if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
                save_state(state, model, optimizers, {"share": share}, step + 1)
            yield done


def load_trained(recipe: Recipe, folder: Path) -> Transformer:
    """The model as last saved in `folder`, on the CPU."""
    model = Transformer(recipe.model, RoundedExperts)
    load_weights(folder / STATE, model)
    return model.eval()


def round_experts(model: Transformer) -> None:
    """Make the forward pass use every expert rounded to MXFP4, as its weights are now."""
    for module in model.modules():
        if isinstance(module, RoundedExperts):
            module.round()
