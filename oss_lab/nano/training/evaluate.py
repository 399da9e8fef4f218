"""Evaluate a trained nano on the suite and its stress section, each row at its efforts.

`python -m oss_lab.nano.training.evaluate [FOLDER]` prints the tables and writes `evaluation.json`
next to the weights. Decoding is greedy, and the seed determines the problems. Journals next to the
weights store the outcomes until the evaluation is complete, so a stopped one can resume.
`oss-lab train` runs this at the end.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm.auto import tqdm

from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.evaluation.journal import Journal, build_fingerprint
from oss_lab.evaluation.report import Score, build_score_table, build_scores
from oss_lab.evaluation.resume import resume
from oss_lab.harmony.messages import EFFORTS
from oss_lab.lab import Lab, load
from oss_lab.nano.suite import STRESS, SUITE, SuiteRow

BATCH = 256
MAX_TOKENS = 400
SEED = 1
SECTIONS = {"suite": SUITE, "stress": STRESS}


def score_rows(
    lab: Lab, folder: Path, rows: dict[str, SuiteRow], n: int, seed: int, journal: Path
) -> list[Score]:
    """Score at most n problems of each row at each of its efforts."""
    problems = {name: row.draw_problems(name, n, seed) for name, row in rows.items()}
    asked = [problem for each in problems.values() for problem in each]
    of = build_fingerprint(open_checkpoint(folder), asked, GREEDY, MAX_TOKENS, seed)
    todo = sum(len(problems[name]) * len(row.efforts) for name, row in rows.items())
    with (
        Journal(
            journal, of, other_file_hint="move it away", restart_hint="delete it to start over"
        ) as kept,
        tqdm(total=todo, unit="problem", disable=None) as bar,
    ):
        bar.update(len(kept.outcomes))
        for effort in EFFORTS:
            left_out = {n for n, each in enumerate(asked) if effort not in rows[each.name].efforts}
            for _ in resume(
                kept,
                lab,
                asked,
                effort,
                batch=BATCH,
                max_tokens=MAX_TOKENS,
                seed=seed,
                left_out=left_out,
            ):
                bar.update()
    return build_scores(kept.outcomes)


def main() -> None:
    """Evaluate the checkpoint named on the command line and write `evaluation.json`."""
    parser = argparse.ArgumentParser(description="Evaluate nano on held-out problems.")
    parser.add_argument("folder", nargs="?", default="nano", help="checkpoint folder, or nano")
    parser.add_argument("--problems", type=int, default=1000, help="at most, per row and effort")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    if arguments.problems < 1:
        parser.error(f"--problems is {arguments.problems}; it must be 1 or more")
    try:
        folder = open_checkpoint(arguments.folder).folder
        write_evaluation(folder, arguments.problems, arguments.seed)
    except LabError as error:
        sys.exit(f"oss_lab.nano.training.evaluate: {error}")


def write_evaluation(folder: Path, n: int, seed: int, device: str | None = None) -> Path:
    """Evaluate, print the tables and write `evaluation.json`; the journals are then deleted.

    Raises:
        LabError: the checkpoint cannot be used, or a journal next to it is of another evaluation.
    """
    report, file = run_evaluation(folder, n, seed, device), folder / "evaluation.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    for section in SECTIONS:
        journal_path(folder, section, n, seed).unlink()
    return file


def run_evaluation(folder: Path, n: int, seed: int, device: str | None = None) -> dict[str, Any]:
    """The scores of each section as JSON values; prints their tables."""
    lab = load(folder, device=device, verbose=False)
    report: dict[str, Any] = {"n": n, "seed": seed}
    for section, rows in SECTIONS.items():
        scored = score_rows(lab, folder, rows, n, seed, journal_path(folder, section, n, seed))
        Console().print(build_score_table(scored))
        report[section] = [asdict(each) for each in scored]
    return report


def journal_path(folder: Path, section: str, n: int, seed: int) -> Path:
    """The file that keeps the outcomes of a section until the evaluation is complete."""
    return folder / f"{section}-{n}-{seed}.journal"


if __name__ == "__main__":
    main()
