"""`finetune`: from a checkpoint and examples to LoRA files and a lab that you can ask."""

import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from oss_lab.checkpoint.atomic import check_output_folder
from oss_lab.checkpoint.digest import checkpoint_digest
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import DTYPES, load_model
from oss_lab.checkpoint.plan import is_small
from oss_lab.checkpoint.vocabulary import DEFAULT_EFFORT, check_vocabulary
from oss_lab.engine.choice import choose_device
from oss_lab.errors import LabError
from oss_lab.finetune.examples import Data, hash_examples, read_examples
from oss_lab.finetune.files import write_adapter
from oss_lab.finetune.heap import return_large_blocks
from oss_lab.finetune.load import load_adapted
from oss_lab.finetune.log import LOG, FinetuneStep, read_log
from oss_lab.finetune.loop import STATE, train
from oss_lab.finetune.lora import make_lora
from oss_lab.finetune.plan import expert_budget
from oss_lab.finetune.recipe import (
    RECIPE,
    Origin,
    compare_recipe,
    make_recipe,
    write_recipe,
)
from oss_lab.finetune.schedule import plan_steps
from oss_lab.finetune.steps import Trainee
from oss_lab.lab import Lab
from oss_lab.lab.loading import vocabulary_name
from oss_lab.nano.training.log import refuse_without_state
from oss_lab.nano.training.state import count_steps_done
from oss_lab.progress import track_progress
from oss_lab.tokenizer import load_vocabulary

SAVE_EVERY = 50  # steps


class Run:
    """A run that is ready to start or to resume; everything that a user gave has been checked.

    Attributes:
        done: finished steps of the run that it resumes.
        total: all steps.

    Raises:
        LabError: the checkpoint, the examples, the recipe or the folder cannot be used. Nothing
            was written.
    """

    def __init__(
        self,
        name: str,
        data: Data,
        out: Path,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        device: torch.device | str | None = None,
        threads: int | None = None,
        download: bool = False,
        save_every: int = SAVE_EVERY,
    ) -> None:
        self.name, self.folder, self.save_every = name, out, save_every
        self.device, self.threads = choose_device(device), threads or os.cpu_count() or 1
        self.checkpoint = find_checkpoint(name, download=download)
        self.recipe = make_recipe(self.checkpoint.config, self.device, **settings)
        self.vocabulary = vocabulary_name(self.checkpoint)
        self.encoding = load_vocabulary(self.vocabulary, checkpoint=self.checkpoint.folder)
        check_vocabulary(self.checkpoint.folder, self.encoding)
        effort = self.recipe.effort or DEFAULT_EFFORT[self.vocabulary]
        self.examples = read_examples(data, self.encoding, self.recipe, effort)
        self.total = len(plan_steps(self.examples, self.recipe))
        digest = checkpoint_digest(self.checkpoint)
        self.origin = Origin(name, digest, hash_examples(self.examples))
        self.done = self._look_into_folder(resume)

    def _look_into_folder(self, resume: bool) -> int:
        """The finished steps of the run in the folder, which must be the one to resume."""
        check_output_folder(self.folder)
        files = {name for name in (RECIPE, STATE, LOG) if (self.folder / name).exists()}
        if files and not resume:
            raise LabError(
                f"{self.folder} already has a run; continue it with resume=True (command line:"
                " --resume), or choose another folder"
            )
        if resume and RECIPE not in files:
            raise LabError(f"{self.folder} has no run to resume; start one without resume")
        if not resume:
            return 0
        compare_recipe(self.folder, self.recipe, self.origin)
        if STATE not in files:
            refuse_without_state(self.folder / LOG, min(self.save_every, self.total))
        return count_steps_done(self.folder / STATE)

    def train(self) -> Generator[FinetuneStep, None, None]:
        """Do the steps that are left, then write the LoRA files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_recipe(self.folder, self.recipe, self.origin)
        is_parallel = is_small(self.checkpoint.config) and self.device.type == "cpu"
        if not is_parallel:
            return_large_blocks()
        model = load_model(
            self.checkpoint,
            dtype=DTYPES[self.recipe.dtype],
            device=self.device,
            expert_cache_bytes=expert_budget(self.checkpoint.config),
        )
        trainee = Trainee(model, make_lora(model.config, self.recipe), self.recipe)
        yield from train(
            trainee,
            self.examples,
            self.folder,
            save_every=self.save_every,
            workers=self.threads if is_parallel else 1,
            threads=1 if is_parallel else self.threads,
        )
        write_adapter(self.folder, trainee.lora, self.recipe, self.name)


@dataclass(frozen=True)
class Finetuned:
    """A finished run.

    Attributes:
        folder: has the LoRA files, the recipe, the log and the state.
        steps: the lines of the log.
    """

    name: str
    folder: Path
    steps: list[FinetuneStep]
    device: torch.device

    @cached_property
    def lab(self) -> Lab:
        """The fine-tuned model as a lab, on the reference engine."""
        return load_adapted(self.name, self.folder, device=self.device)


def finetune(
    name: str,
    data: Data,
    out: str | Path,
    *,
    resume: bool = False,
    device: torch.device | str | None = None,
    threads: int | None = None,
    save_every: int = SAVE_EVERY,
    **settings: Any,
) -> Finetuned:
    """Fine-tune a checkpoint on examples with LoRA, with a progress bar.

        examples = [{"messages": [{"role": "user", "content": "Reverse: abc"},
                                  {"role": "assistant", "content": "cba"}]}, ...]
        tuned = finetune("nano", examples, "reverse", rank=8, epochs=3)
        tuned.lab.chat("Reverse: dog").final

    Args:
        name: "nano", "20b", a Hub id or a checkpoint folder.
        data: a file with one example per line, or a list of examples; see `examples.py`.
        out: the folder of the run. PEFT and `oss-lab convert --adapter` read it.
        resume: continue a stopped run in `out`; everything else must be the same.
        threads: of the CPU; by default one per processor.
        save_every: steps between two saved states.
        settings: fields of `Recipe`, such as `rank` or `learning_rate`.

    Raises:
        LabError: something given cannot be used, or the folder has another run.
    """
    run = Run(
        name, data, Path(out), settings,
        resume=resume, device=device, threads=threads, save_every=save_every,
    )  # fmt: skip
    with track_progress(run.train(), "fine-tuning", total=run.total, done=run.done) as bar:
        for step in bar:
            bar.set_postfix(loss=f"{step.loss:.3f}")
    return Finetuned(name, run.folder, read_log(run.folder / LOG), run.device)
