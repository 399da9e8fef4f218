"""The compile gate: every kernel compiles, without spills and the like, for GPUs that are not
present."""

import json
import os
import subprocess
import sys
from itertools import chain, product
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
import oss_kernels
from oss_kernels.operations import OPERATIONS

QUICK = ("gfx942", "sm_90")


def run_gate(*options: str) -> list[dict]:
    """Run the gate in a separate process, since nothing compiles under the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "oss_kernels.gate", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_folder_with_cases_is_an_operation():
    folders = Path(oss_kernels.__file__).parent.glob("*/cases.py")
    assert {folder.parent.name for folder in folders} == set(OPERATIONS)


def list_complaints(rows: list[dict]) -> list[str]:
    return [f"{row['case']}, {row['target']}: {said}" for row in rows for said in row["complaints"]]


@pytest.mark.parametrize("operations", [OPERATIONS[:4], OPERATIONS[4:]], ids="-".join)
def test_operations_compile_well_for_two_targets_that_share_the_cases(operations):
    chosen = [*(("--operation", name) for name in operations), *(("--target", n) for n in QUICK)]
    rows = run_gate("--model", "20b", "--by-turns", *chain(*chosen))
    assert {(row["operation"], row["target"]) for row in rows} == set(product(operations, QUICK))
    assert list_complaints(rows) == []


@pytest.mark.slow
def test_every_operation_compiles_well_for_every_target():
    """By turns: all cases for all targets are eight minutes of `python -m oss_kernels.gate`."""
    rows = run_gate("--by-turns")
    assert len({(row["operation"], row["target"]) for row in rows}) == 8 * len(OPERATIONS)
    assert list_complaints(rows) == []
