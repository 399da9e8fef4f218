"""Measure findings on a trained nano; writes `findings.json` beside its weights.

    python -m oss_lab.nano.studies nano-run/checkpoint --compare "no balance"=other/checkpoint

MXFP4 is held against BF16 where the run's own folder is the one above the checkpoint, or is named
with --run. With --only, the other findings of the file stay as they are.
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
    window,
)
from oss_lab.nano.training.recipe import read_recipe

EXPERIMENTS = (
    "corruption",
    "commitment",
    "effort",
    "calls",
    "dropped",
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
        help="another checkpoint whose experts are looked at, such as one trained without balance",
    )
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="the run it was exported from")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    parser.add_argument("--n", type=int, default=300, help="problems a row (default: 300)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.n < 1:
        parser.error(f"--n is {arguments.n}; it must be 1 or more")
    try:
        checkpoint = find_checkpoint(arguments.folder)
        run = arguments.run or checkpoint.folder.parent
        if arguments.run and not rounding.is_run(run):
            raise LabError(f"{run} holds no run: {rounding.RECIPE} or {rounding.STATE} is missing")
        if rounding.is_run(run):
            read_recipe(run / rounding.RECIPE)  # refused now, and not behind the other experiments
        compared = dict(named(text) for text in arguments.compare)
        file = checkpoint.folder / "findings.json"
        about = {
            "n": arguments.n,
            "seed": arguments.seed,
            "checkpoint": checkpoint_digest(checkpoint),
        }
        kept = {} if set(arguments.only) == set(EXPERIMENTS) else earlier(file, about)
        found = findings(checkpoint, compared, run, arguments.n, arguments.seed, arguments.only)
        for name, result in found:
            kept[name] = rounded(result)
            write(file, about | {name: kept[name] for name in EXPERIMENTS if name in kept})
            print(f"{name}: written to {file}")
    except LabError as error:
        sys.exit(f"oss_lab.nano.studies: {error}")


def rounded(result: Any) -> Any:
    """The same with four decimals, which are more than any of this is worth."""
    return json.loads(json.dumps(result), parse_float=lambda digits: round(float(digits), 4))


def write(file: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")


def named(text: str) -> tuple[str, Checkpoint]:
    """NAME=FOLDER as the name and the checkpoint."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise LabError(f"--compare is {text!r}; write NAME=FOLDER")
    return name, find_checkpoint(folder)


def earlier(file: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run found on the same checkpoint with the same n and seed."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    if other := [name for name, value in about.items() if found.get(name) != value]:
        raise LabError(f"{file} has another {' and '.join(other)}; measure everything, not --only")
    return {name: found[name] for name in EXPERIMENTS if name in found}


def findings(
    checkpoint: Checkpoint,
    compared: dict[str, Checkpoint],
    run: Path,
    n: int,
    seed: int,
    only: Collection[str],
) -> Iterator[tuple[str, Any]]:
    """The experiments that are asked for, as plain values; None is what there is no run for."""
    lab = load(checkpoint.folder)
    measures: dict[str, Callable[[], Any]] = {
        "corruption": lambda: [
            asdict(corruption.measure(lab, effort, n, seed)) for effort in corruption.EFFORTS
        ],
        "experts": lambda: asdict(experts.measure(lab, n, seed)),
        "compared": lambda: {
            name: {
                "checkpoint": checkpoint_digest(other),
                **asdict(experts.measure(load(other.folder), n, seed)),
            }
            for name, other in compared.items()
        },
        "commitment": lambda: [asdict(each) for each in commitment.measure(lab, n, seed)],
        "effort": lambda: [asdict(each) for each in effort.measure(lab, n, seed)],
        "sinks": lambda: [asdict(each) for each in sinks.measure(lab, n, seed)],
        "selective": lambda: asdict(selective.measure(lab, n, seed)),
        "calls": lambda: [asdict(each) for each in calls.measure(lab, n, seed)],
        "dropped": lambda: [asdict(each) for each in dropped.measure(lab, n, seed)],
        "window": lambda: [
            asdict(each) for each in window.measure(lab, checkpoint.folder, n, seed)
        ],
        "rounding": lambda: (
            [asdict(each) for each in rounding.measure(lab, run, n, seed)]
            if rounding.is_run(run)
            else None
        ),
    }
    for name in EXPERIMENTS:
        if name in only:
            yield name, measures[name]()


if __name__ == "__main__":
    main()
