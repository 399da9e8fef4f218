"""The compile gate: every kernel compiles for GPUs that are not here, and well."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
import oss_kernels
from oss_kernels.operations import OPERATIONS

QUICK = ("sm_90", "gfx942")


def gate(*options: str) -> list[dict]:
    """In a process of its own, since nothing compiles under the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "oss_kernels.gate", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_folder_with_cases_is_an_operation():
    folders = Path(oss_kernels.__file__).parent.glob("*/cases.py")
    assert {folder.parent.name for folder in folders} == set(OPERATIONS)


def judged(rows: list[dict]) -> list[str]:
    return [f"{row['case']}, {row['target']}: {said}" for row in rows for said in row["complaints"]]


def test_every_kernel_compiles_well_for_two_targets():
    rows = gate(*(word for name in QUICK for word in ("--target", name)))
    assert {(row["operation"], row["target"]) for row in rows} == set(product(OPERATIONS, QUICK))
    assert judged(rows) == []


@pytest.mark.slow
def test_every_kernel_compiles_well_for_every_target():
    rows = gate()
    assert len({(row["operation"], row["target"]) for row in rows}) == 8 * len(OPERATIONS)
    assert judged(rows) == []
