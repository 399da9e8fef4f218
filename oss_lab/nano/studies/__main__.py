"""Run the experiments on a trained nano and write `findings.json` next to its weights.

    python -m oss_lab.nano.studies nano-run/checkpoint --compare "no balance"=other/checkpoint

The comparison of MXFP4 with BF16 needs the training run: the folder above the checkpoint, or the
one given with --run. With --only, the other findings in the file stay unchanged.
"""

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.digest import checkpoint_digest
from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.errors import LabError
from oss_lab.lab import load
from oss_lab.nano.studies import (
    calls,
    commitment,
    corruption,
    dropped,
    effort,
    experts,
    rounding,
    selective,
    sinks,
    turns,
    window,
)
from oss_lab.nano.training.recipe import read_recipe

EXPERIMENTS = (
    "corruption",
    "commitment",
    "effort",
    "calls",
    "dropped",
    "turns",
    "window",
    "sinks",
    "experts",
    "compared",
    "selective",
    "rounding",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_lab.nano.studies", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="checkpoint folder, or nano")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="another checkpoint for the experts study, such as one trained without balance loss",
    )
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="the training run that FOLDER was exported from"
    )
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    parser.add_argument("--n", type=int, default=300, help="problems per row (default: 300)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.n < 1:
        parser.error(f"--n is {arguments.n}; it must be 1 or more")
    try:
        checkpoint = find_checkpoint(arguments.folder)
        run = arguments.run or checkpoint.folder.parent
        if arguments.run and not rounding.is_run(run):
            raise LabError(f"{run} is not a run: {rounding.RECIPE} or {rounding.STATE} is missing")
        if rounding.is_run(run):
            read_recipe(run / rounding.RECIPE)  # fail now, not after the other experiments
        compared = dict(parse_comparison(text) for text in arguments.compare)
        file = checkpoint.folder / "findings.json"
        about = {
            "n": arguments.n,
            "seed": arguments.seed,
            "checkpoint": checkpoint_digest(checkpoint),
        }
        kept = {} if set(arguments.only) == set(EXPERIMENTS) else read_earlier(file, about)
        found = run_experiments(
            checkpoint, compared, run, arguments.n, arguments.seed, arguments.only
        )
        for name, result in found:
            kept[name] = round_floats(result)
            write_findings(file, about | {name: kept[name] for name in EXPERIMENTS if name in kept})
            print(f"{name}: written to {file}")
    except LabError as error:
        sys.exit(f"oss_lab.nano.studies: {error}")


def round_floats(result: Any) -> Any:
    """Round all floats to four decimals, more than the precision of any result."""
    return json.loads(json.dumps(result), parse_float=lambda digits: round(float(digits), 4))


def write_findings(file: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")


def parse_comparison(text: str) -> tuple[str, Checkpoint]:
    """Parse NAME=FOLDER into the name and the checkpoint."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise LabError(f"--compare is {text!r}; write NAME=FOLDER")
    return name, find_checkpoint(folder)


def read_earlier(file: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The findings of an earlier run on the same checkpoint with the same n and seed."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if other := [name for name, value in about.items() if found.get(name) != value]:
        raise LabError(
            f"{file} has another {' and '.join(other)}; run all experiments, without --only"
        )
    return {name: found[name] for name in EXPERIMENTS if name in found}


def run_experiments(
    checkpoint: Checkpoint,
    compared: dict[str, Checkpoint],
    run: Path,
    n: int,
    seed: int,
    only: Collection[str],
) -> Iterator[tuple[str, Any]]:
    """Run the experiments named in `only` and yield each result as JSON values.

    `rounding` is None if `run` is not a training run.
    """
    lab = load(checkpoint.folder)
    measures: dict[str, Callable[[], Any]] = {
        "corruption": lambda: [
            asdict(corruption.study_corruption(lab, effort, n, seed))
            for effort in corruption.EFFORTS
        ],
        "experts": lambda: asdict(experts.study_experts(lab, n, seed)),
        "compared": lambda: {
            name: {
                "checkpoint": checkpoint_digest(other),
                **asdict(experts.study_experts(load(other.folder), n, seed)),
            }
            for name, other in compared.items()
        },
        "commitment": lambda: [asdict(each) for each in commitment.study_commitment(lab, n, seed)],
        "effort": lambda: [asdict(each) for each in effort.study_effort(lab, n, seed)],
        "sinks": lambda: [asdict(each) for each in sinks.study_sinks(lab, n, seed)],
        "selective": lambda: asdict(selective.study_selective(lab, n, seed)),
        "calls": lambda: [asdict(each) for each in calls.study_calls(lab, n, seed)],
        "dropped": lambda: [asdict(each) for each in dropped.study_dropped(lab, n, seed)],
        "turns": lambda: [asdict(each) for each in turns.study_turns(lab, n, seed)],
        "window": lambda: [
            asdict(each) for each in window.study_window(lab, checkpoint.folder, n, seed)
        ],
        "rounding": lambda: (
            [asdict(each) for each in rounding.study_rounding(lab, run, n, seed)]
            if rounding.is_run(run)
            else None
        ),
    }
    for name in EXPERIMENTS:
        if name in only:
            yield name, measures[name]()


if __name__ == "__main__":
    main()
