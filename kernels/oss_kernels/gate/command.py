"""`python -m oss_kernels.gate`: compile every kernel for every target, and judge the code.

Prints a row a kernel and target, or JSON; the status is 1 if anything is wrong.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from oss_kernels.cases import Make
from oss_kernels.gate.build import build
from oss_kernels.gate.judge import complaints
from oss_kernels.gate.report import report
from oss_kernels.gate.targets import TARGETS, Target
from oss_kernels.launch import INTERPRETED
from oss_kernels.operations import OPERATIONS, cases_of
from oss_kernels.shapes import MODELS

HEAD = ("kernel", "target", "registers", "shared", "wide / all loads", "matrix", "verdict")


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_kernels.gate", description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("--target", action="append", choices=names, help="default: all")
    parser.add_argument("--operation", action="append", choices=OPERATIONS, help="default: all")
    parser.add_argument("--json", action="store_true", help="a line of JSON a row")
    arguments = parser.parse_args()
    if INTERPRETED:
        sys.exit("oss_kernels.gate: TRITON_INTERPRET=1 is set; nothing is compiled under it")
    targets = [t for t in TARGETS if not arguments.target or t.name in arguments.target]
    wrong = 0
    if not arguments.json:
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for row in rows(arguments.operation or OPERATIONS, targets):
        wrong += bool(row["complaints"])
        print(json.dumps(row) if arguments.json else line(row), flush=True)
    sys.exit(1 if wrong else 0)


def rows(operations: Sequence[str], targets: Sequence[Target]) -> Iterator[dict[str, Any]]:
    """One for every case of every operation, model and target; equal cases of models once."""
    for operation in operations:
        for target in targets:
            seen = set[str]()
            for shapes in MODELS:
                for case in cases_of(operation, shapes, Make()):
                    key = repr([(launch.arguments, launch.constants) for launch in case.launches])
                    if key in seen:
                        continue
                    seen.add(key)
                    reports = [report(build(each, target), target) for each in case.launches]
                    yield {
                        "operation": operation,
                        "case": case.name,
                        "model": shapes.name,
                        "target": target.name,
                        "kernels": [asdict(each) for each in reports],
                        "complaints": complaints(case, reports, target),
                    }


def line(row: dict[str, Any]) -> str:
    """A row of the table; kernels of one case are joined by +."""

    def joined(name: str) -> str:
        return " + ".join(str(kernel[name]) for kernel in row["kernels"])

    loads = " + ".join(f"{k['wide_loads']} / {k['loads']}" for k in row["kernels"])
    verdict = "; ".join(row["complaints"]) or "good"
    kernel = f"{row['case']} ({row['model']})"
    cells = (kernel, row["target"], joined("registers"), joined("shared"), loads, joined("matrix"))
    return f"| {' | '.join(cells)} | {verdict} |"
