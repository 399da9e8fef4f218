"""`python -m oss_kernels.gate`: compile every kernel for every target, and check the code.

Prints a table with one row per case and target, or JSON. The exit status is 1 if anything is wrong.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from oss_kernels.cases import Case, Make
from oss_kernels.gate.build import build
from oss_kernels.gate.judge import find_complaints
from oss_kernels.gate.report import report
from oss_kernels.gate.targets import TARGETS, CompileTarget
from oss_kernels.launch import INTERPRETED
from oss_kernels.operations import OPERATIONS, make_operation_cases
from oss_kernels.shapes import MODELS, Shapes

HEAD = ("kernel", "target", "registers", "shared", "wide / all loads", "matrix", "verdict")


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_kernels.gate", description=__doc__)
    by_name = {target.name: target for target in TARGETS}
    parser.add_argument("--target", action="append", choices=by_name, help="default: all")
    parser.add_argument("--operation", action="append", choices=OPERATIONS, help="default: all")
    parser.add_argument("--model", choices=[shapes.name for shapes in MODELS], help="default: all")
    parser.add_argument(
        "--by-turns",
        action="store_true",
        help="compile every case once and every operation for every target, by turns",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON per row")
    arguments = parser.parse_args()
    if INTERPRETED:
        sys.exit("oss_kernels.gate: TRITON_INTERPRET=1 is set, so nothing is compiled; unset it")
    targets = [by_name[name] for name in arguments.target or by_name]
    models = [shapes for shapes in MODELS if arguments.model in (None, shapes.name)]
    wrong = 0
    if not arguments.json:
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    operations = arguments.operation or OPERATIONS
    for row in compile_cases(operations, targets, models, by_turns=arguments.by_turns):
        wrong += bool(row["complaints"])
        print(json.dumps(row) if arguments.json else format_row(row), flush=True)
    sys.exit(1 if wrong else 0)


def compile_cases(
    operations: Sequence[str],
    targets: Sequence[CompileTarget],
    models: Sequence[Shapes],
    *,
    by_turns: bool = False,
) -> Iterator[dict[str, Any]]:
    """A row for every case of every operation, model and target. Equal cases of models come once.

    With by_turns, an operation's first case is compiled for the first target only, its second case
    for the second target only, and so on, until every case and every target had a turn.
    """
    for operation in operations:
        distinct = list(distinct_cases(operation, models))
        turns = range(max(len(distinct), len(targets)))
        chosen = {(turn % len(targets), turn % len(distinct)) for turn in turns}
        for place, target in enumerate(targets):
            for number, (model, case) in enumerate(distinct):
                if by_turns and (place, number) not in chosen:
                    continue
                reports = [report(build(each, target), target) for each in case.launches]
                yield {
                    "operation": operation,
                    "case": case.name,
                    "model": model,
                    "target": target.name,
                    "kernels": [asdict(each) for each in reports],
                    "complaints": find_complaints(case, reports, target),
                }


def distinct_cases(operation: str, models: Sequence[Shapes]) -> Iterator[tuple[str, Case]]:
    """Every case once, with the name of the first model that has it."""
    seen = set[str]()
    for shapes in models:
        for case in make_operation_cases(operation, shapes, Make()):
            key = repr([(launch.arguments, launch.constants) for launch in case.launches])
            if key not in seen:
                seen.add(key)
                yield shapes.name, case


def format_row(row: dict[str, Any]) -> str:
    """A row of the table, with the kernels of one case joined by +."""

    def join_counts(name: str) -> str:
        return " + ".join(str(kernel[name]) for kernel in row["kernels"])

    loads = " + ".join(f"{k['wide_loads']} / {k['loads']}" for k in row["kernels"])
    verdict = "; ".join(row["complaints"]) or "good"
    kernel = f"{row['case']} ({row['model']})"
    cells = (
        kernel,
        row["target"],
        join_counts("registers"),
        join_counts("shared"),
        loads,
        join_counts("matrix"),
    )
    return f"| {' | '.join(cells)} | {verdict} |"
