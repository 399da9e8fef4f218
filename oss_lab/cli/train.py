"""`oss-lab train`: train gpt-oss-nano from scratch.

One folder has everything of a run: recipe, log and state, and at the end the curves as a web page
and the checkpoint with an evaluation on held-out problems. The evaluation takes a while on a CPU;
`--problems 0` skips it. After Ctrl-C the same command resumes, from the last state (saved every
hundred steps) or within the evaluation.

The shipped nano was trained with the default recipe. The number of threads does not change any
loss, but another processor or PyTorch version rounds differently and gives a different nano.
`--smoke` repeats the first steps of the shipped run and compares every loss with its log; the exit
status is 1 if one differs.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from oss_lab.cli._options import Threads
from oss_lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from oss_lab.nano.training.recipe import Recipe

SHIPPED = Path(__file__).parents[1] / "assets" / "nano"
PROBLEMS = 100


def run(
    out: Annotated[Path | None, Option(help="folder of the run (default: nano-run)")] = None,
    mix: Annotated[
        str | None, Option(help="tasks: `broad` (default), or one such as `two-digit sums`")
    ] = None,
    steps: Annotated[
        int | None, Option(min=1, max=2**31, help="steps (default: as for nano)")
    ] = None,
    seed: Annotated[
        int | None, Option(min=0, max=2**63 - 1, help="seed (default: as for nano)")
    ] = None,
    problems: Annotated[
        int | None,
        Option(
            min=0, max=1000, help=f"problems to evaluate per row and effort (default: {PROBLEMS})"
        ),
    ] = None,
    threads: Threads = None,
    device: Annotated[str | None, Option(help="default: OSS_LAB_DEVICE, else cuda or cpu")] = None,
    smoke: Annotated[
        bool, Option("--smoke", help="only repeat and check nano's first 50 steps")
    ] = False,
) -> int:
    """Train gpt-oss-nano from scratch."""
    given = {"mix": mix, "steps": steps, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    if smoke and (given or device or out or problems is not None):
        raise LabError(
            "--smoke repeats the shipped recipe on the CPU: leave out all options except --threads"
        )
    from oss_lab.engine.choice import choose_device
    from oss_lab.nano.tasks.mix import MIXES
    from oss_lab.nano.training.recipe import Recipe

    threads = threads or os.cpu_count() or 1
    if smoke:
        return run_smoke(SHIPPED, threads)
    if mix is not None and mix not in MIXES:
        raise LabError(f"--mix is {mix!r}; use one of {', '.join(MIXES)}")
    problems = PROBLEMS if problems is None else problems
    folder = out or Path("nano-run")
    return run_recipe(Recipe(**given), folder, choose_device(device), threads, problems)


def run_recipe(
    recipe: "Recipe", folder: Path, device: "torch.device", threads: int, problems: int
) -> int:
    """Train to the end with a progress bar, write the curves and the checkpoint, and evaluate."""
    from tqdm.auto import tqdm

    from oss_lab.nano.training.curves import write_curves
    from oss_lab.nano.training.evaluate import SEED, write_evaluation
    from oss_lab.nano.training.export import export
    from oss_lab.nano.training.loop import load_trained, train
    from oss_lab.nano.training.recipe import STATE
    from oss_lab.nano.training.state import count_steps_done

    done, todo = count_steps_done(folder / STATE), recipe.steps
    print(f"{folder}: step {done} of {todo} on {device}; after Ctrl-C the same command resumes")
    sys.stdout.flush()
    learned = 0
    steps = train(recipe, folder, device, threads=threads)
    with tqdm(steps, initial=done, total=todo, disable=None) as bar:
        for step in bar:
            learned += step.learnt_tokens
            bar.set_postfix(loss=f"{step.loss:.3f}", tokens=f"{learned:,}")
    checkpoint = folder / "checkpoint"
    export(load_trained(recipe, folder), checkpoint)
    print(f"wrote {write_curves(folder)}")
    print(f"wrote {checkpoint}; to try it: oss-lab chat {checkpoint}")
    if problems:
        sys.stdout.flush()
        print(f"wrote {write_evaluation(checkpoint, problems, SEED, str(device))}")
    return 0


def run_smoke(folder: Path, threads: int) -> int:
    """Repeat the first steps of the run in `folder`; print the result and the machines."""
    from tqdm.auto import tqdm

    from oss_lab.nano.training.machine import describe_machine, read_machine
    from oss_lab.nano.training.smoke import STEPS, SmokeTest, read_losses, recompute_losses

    log, machine = read_losses(folder, STEPS), read_machine(folder)
    here = tuple(
        tqdm(recompute_losses(folder, STEPS, threads), total=STEPS, unit="step", disable=None)
    )
    smoke = SmokeTest(here, log, describe_machine(threads), machine)
    print(smoke.result)
    print(smoke.machines)
    return 0 if smoke.has_passed else 1
