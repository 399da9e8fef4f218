"""What the gate says of code that is not as good as it should be, made by hand."""

import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from oss_kernels.cases import Case
from oss_kernels.gate.judge import complaints
from oss_kernels.gate.report import Report
from oss_kernels.gate.targets import TARGETS

GOOD = Report(
    registers=64, stack=0, spills=0, shared=1024, wide_loads=4, loads=5, matrix=8, warp_group=8,
    flushes=0,
)  # fmt: skip
CASE = Case("x", (), 1, 1, frozenset({"wide loads", "matrix instructions", "subnormals"}))
BY_NAME = {target.name: target for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_good_code_is_not_complained_about(target):
    assert complaints(CASE, [GOOD], target) == []


@pytest.mark.parametrize(
    ("target", "fault", "said"),
    [
        ("sm_80", {"stack": 8}, "spills 8 bytes"),
        ("sm_80", {"spills": 3}, "in 3 instructions"),
        ("gfx942", {"shared": 65537}, "wants 65537 bytes of shared memory, 65536 are there"),
        ("sm_80", {"flushes": 2}, "flushes subnormals in 2"),
        ("sm_80", {"wide_loads": 0}, "no load of 128 bits"),
        ("sm_80", {"matrix": 0}, "no matrix instructions"),
        ("sm_90", {"warp_group": 0}, "no matrix instructions of a warp group"),
    ],
)
def test_each_fault_is_complained_about(target, fault, said):
    (sentence,) = complaints(CASE, [replace(GOOD, **fault)], BY_NAME[target])
    assert said in sentence


def test_what_no_case_needs_is_not_missed():
    bad = replace(GOOD, wide_loads=0, matrix=0, warp_group=0, flushes=1)
    assert complaints(replace(CASE, needs=frozenset()), [bad], BY_NAME["sm_90"]) == []


def test_one_kernel_of_a_case_is_enough_for_its_needs_and_each_may_spill():
    bare = replace(GOOD, wide_loads=0, matrix=0)
    assert complaints(CASE, [bare, GOOD], BY_NAME["sm_80"]) == []
    spilling = replace(GOOD, spills=1)
    assert len(complaints(CASE, [spilling, GOOD, spilling], BY_NAME["sm_80"])) == 2


def test_a_complaint_is_the_commands_status():
    """A machine with no shared memory, in a process of its own: nothing compiles here."""
    code = (
        "import os, sys; os.environ.pop('TRITON_INTERPRET', None)\n"
        "from dataclasses import replace\n"
        "from oss_kernels.gate import command as gate\n"
        "gate.TARGETS = tuple(replace(target, shared=-1) for target in gate.TARGETS)\n"
        "sys.argv = ['gate', '--operation', 'rms_norm', '--target', 'sm_90']\n"
        "gate.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "-1 are there" in done.stdout
