"""`python -m oss_kernels.gate`: compile every kernel for every target, and judge the code.

Prints a row a kernel and target, or JSON; the status is 1 if anything is wrong.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from oss_kernels.cases import Case, Make
from oss_kernels.gate.build import build
from oss_kernels.gate.judge import complaints
from oss_kernels.gate.report import report
from oss_kernels.gate.targets import TARGETS, Target
from oss_kernels.launch import INTERPRETED
from oss_kernels.operations import OPERATIONS, cases_of
from oss_kernels.shapes import MODELS, Shapes

HEAD = ("kernel", "target", "registers", "shared", "wide / all loads", "matrix", "verdict")


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_kernels.gate", description=__doc__)
    by_name = {target.name: target for target in TARGETS}
    parser.add_argument("--target", action="append", choices=by_name, help="default: all")
    parser.add_argument("--operation", action="append", choices=OPERATIONS, help="default: all")
    parser.add_argument("--model", choices=[shapes.name for shapes in MODELS], help="default: all")
    parser.add_argument(
        "--by-turns", action="store_true", help="an operation's cases each for one of the targets"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON a row")
    arguments = parser.parse_args()
    if INTERPRETED:
        sys.exit("oss_kernels.gate: TRITON_INTERPRET=1 is set; nothing is compiled under it")
    targets = [by_name[name] for name in arguments.target or by_name]
    models = [shapes for shapes in MODELS if arguments.model in (None, shapes.name)]
    wrong = 0
    if not arguments.json:
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    operations = arguments.operation or OPERATIONS
    for row in rows(operations, targets, models, by_turns=arguments.by_turns):
        wrong += bool(row["complaints"])
        print(json.dumps(row) if arguments.json else line(row), flush=True)
    sys.exit(1 if wrong else 0)


def rows(
    operations: Sequence[str],
    targets: Sequence[Target],
    models: Sequence[Shapes],
    *,
    by_turns: bool = False,
) -> Iterator[dict[str, Any]]:
    """One for every case of every operation, model and target; equal cases of models once.

    By turns, an operation's first case is compiled for the first target, its second for the second.
    """
    for operation in operations:
        for place, target in enumerate(targets):
            for number, (model, case) in enumerate(distinct_cases(operation, models)):
                if by_turns and number % len(targets) != place:
                    continue
                reports = [report(build(each, target), target) for each in case.launches]
                yield {
                    "operation": operation,
                    "case": case.name,
                    "model": model,
                    "target": target.name,
                    "kernels": [asdict(each) for each in reports],
                    "complaints": complaints(case, reports, target),
                }


def distinct_cases(operation: str, models: Sequence[Shapes]) -> Iterator[tuple[str, Case]]:
    """Each with the name of the first model that has it."""
    seen = set[str]()
    for shapes in models:
        for case in cases_of(operation, shapes, Make()):
            key = repr([(launch.arguments, launch.constants) for launch in case.launches])
            if key not in seen:
                seen.add(key)
                yield shapes.name, case


def line(row: dict[str, Any]) -> str:
    """A row of the table; kernels of one case are joined by +."""

    def joined(name: str) -> str:
        return " + ".join(str(kernel[name]) for kernel in row["kernels"])

    loads = " + ".join(f"{k['wide_loads']} / {k['loads']}" for k in row["kernels"])
    verdict = "; ".join(row["complaints"]) or "good"
    kernel = f"{row['case']} ({row['model']})"
    cells = (kernel, row["target"], joined("registers"), joined("shared"), loads, joined("matrix"))
    return f"| {' | '.join(cells)} | {verdict} |"
