"""`oss-lab train`, and `python -m oss_lab.train`: train gpt-oss-nano anew.

A run lives in one folder: its recipe, its log, its state, and in the end its checkpoint. Stopped,
it goes on from the last state (one every hundred steps) when the same command is given again. The
shipped nano was trained with the default recipe; other machines and thread counts round
differently and give another nano.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from oss_lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from oss_lab.train.loop import Recipe


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("train", help="train gpt-oss-nano", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("nano-run"),
        metavar="FOLDER",
        help="where the run lives (default: nano-run)",
    )
    parser.add_argument("--steps", type=int, help="default: as many as the shipped nano")
    parser.add_argument("--seed", type=int, help="default: the shipped nano's")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--device", help="default: OSS_LAB_DEVICE, else a CUDA GPU, else cpu")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    for name in ("steps", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise LabError(f"--{name} is {value}; it must be 1 or more.")
    import torch

    from oss_lab.loading import chosen_device
    from oss_lab.train.loop import Recipe

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    given = {name: getattr(args, name) for name in ("steps", "seed")}
    recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    return run_recipe(recipe, args.out, chosen_device(args.device))


def run_recipe(recipe: "Recipe", folder: Path, device: "torch.device") -> int:
    """Train to the end with a progress bar, then write the checkpoint."""
    from tqdm.auto import tqdm

    from oss_lab.train.export import export
    from oss_lab.train.loop import STATE, train, trained
    from oss_lab.train.state import steps_done

    done, todo = steps_done(folder / STATE), recipe.steps
    print(f"{folder}: step {done} of {todo} on {device}; after Ctrl-C the same command goes on")
    sys.stdout.flush()
    with tqdm(train(recipe, folder, device), initial=done, total=todo, disable=None) as bar:
        for step in bar:
            bar.set_postfix(loss=f"{step.loss:.3f}", effort=step.effort)
    checkpoint = folder / "checkpoint"
    export(trained(recipe, folder), checkpoint)
    print(f"wrote {checkpoint}; try it: oss-lab chat {checkpoint}")
    return 0
