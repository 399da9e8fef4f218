"""`oss-lab train`: train gpt-oss-nano from scratch.

A run lives in one folder: its recipe, its log, its state, and in the end its curves as a page and
its checkpoint with an evaluation on held-out problems. Stopped, it goes on from the last state (one
every hundred steps) or within the evaluation when the same command is given again. The shipped nano
was trained with the default recipe. The number of threads changes no loss; another processor or
version of torch rounds differently and gives another nano. `--smoke` computes the first steps of
the shipped run again and compares every loss with its log.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from oss_lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from oss_lab.nano.training.recipe import Recipe

SHIPPED = Path(__file__).parents[1] / "assets" / "nano"
RECIPE_OPTIONS = ("mix", "steps", "seed")
PROBLEMS = 100


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("train", help="train gpt-oss-nano", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the run lives (default: nano-run)",
    )
    parser.add_argument(
        "--mix", help="what is learnt, `broad` or `short products` (default: broad)"
    )
    parser.add_argument("--steps", type=int, help="default: as many as the shipped nano")
    parser.add_argument("--seed", type=int, help="default: the shipped nano's")
    parser.add_argument(
        "--problems",
        type=int,
        metavar="N",
        help="evaluate at the end on at most N held-out problems a row and effort; 0 for no"
        f" evaluation (default: {PROBLEMS}, which takes a while on a CPU)",
    )
    parser.add_argument(
        "--threads", type=int, help="CPU threads of the training (default: one for each processor)"
    )
    parser.add_argument("--device", help="default: OSS_LAB_DEVICE, else a CUDA GPU, else cpu")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="train nothing: repeat the shipped run's first 50 steps; status 1 if a loss differs",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    for name, least, most in (
        ("steps", 1, 2**31),
        ("seed", 0, 2**63 - 1),
        ("problems", 0, 1000),
        ("threads", 1, 1024),
    ):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise LabError(f"--{name} is {value}; it must be from {least} to {most}")
    given = {name: getattr(args, name) for name in RECIPE_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    if args.smoke and (given or args.device or args.out or args.problems is not None):
        raise LabError("--smoke repeats the shipped recipe on the CPU; it takes only --threads")
    from oss_lab.engine.loading import chosen_device
    from oss_lab.nano.tasks.mix import MIXES
    from oss_lab.nano.training.recipe import Recipe

    threads = args.threads or os.cpu_count() or 1
    if args.smoke:
        return run_smoke(SHIPPED, threads)
    if args.mix is not None and args.mix not in MIXES:
        raise LabError(f"--mix is {args.mix!r}; use one of {', '.join(MIXES)}")
    problems = PROBLEMS if args.problems is None else args.problems
    folder, device = args.out or Path("nano-run"), chosen_device(args.device)
    return run_recipe(Recipe(**given), folder, device, threads, problems)


def run_recipe(
    recipe: "Recipe", folder: Path, device: "torch.device", threads: int, problems: int
) -> int:
    """Train to the end with a progress bar, write the curves and the checkpoint, and evaluate."""
    from tqdm.auto import tqdm

    from oss_lab.nano.training.curves import write_curves
    from oss_lab.nano.training.evaluate import SEED, write_evaluation
    from oss_lab.nano.training.export import export
    from oss_lab.nano.training.loop import train, trained
    from oss_lab.nano.training.recipe import STATE
    from oss_lab.nano.training.state import steps_done

    done, todo = steps_done(folder / STATE), recipe.steps
    print(f"{folder}: step {done} of {todo} on {device}; after Ctrl-C the same command goes on")
    sys.stdout.flush()
    learnt = 0
    steps = train(recipe, folder, device, threads=threads)
    with tqdm(steps, initial=done, total=todo, disable=None) as bar:
        for step in bar:
            learnt += step.learnt_tokens
            bar.set_postfix(loss=f"{step.loss:.3f}", tokens=f"{learnt:,}")
    checkpoint = folder / "checkpoint"
    export(trained(recipe, folder), checkpoint)
    print(f"wrote {write_curves(folder)}")
    print(f"wrote {checkpoint}; try it: oss-lab chat {checkpoint}")
    if problems:
        sys.stdout.flush()
        print(f"wrote {write_evaluation(checkpoint, problems, SEED, str(device))}")
    return 0


def run_smoke(folder: Path, threads: int) -> int:
    """Repeat the first steps of the run in `folder`; one line of result, then the machines."""
    from tqdm.auto import tqdm

    from oss_lab.nano.training.machine import read_machine, this_machine
    from oss_lab.nano.training.smoke import STEPS, Smoke, recomputed, recorded

    log, machine = recorded(folder, STEPS), read_machine(folder)
    here = tuple(tqdm(recomputed(folder, STEPS, threads), total=STEPS, unit="step", disable=None))
    smoke = Smoke(here, log, this_machine(threads), machine)
    print(smoke.result)
    print(smoke.machines)
    return 0 if smoke.passed else 1
