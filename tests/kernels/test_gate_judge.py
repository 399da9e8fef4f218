"""The gate's complaints about hand-made reports of poor code."""

import sys
from dataclasses import replace
from itertools import product

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from oss_kernels.cases import Case
from oss_kernels.gate import command
from oss_kernels.gate.judge import find_complaints
from oss_kernels.gate.report import Report
from oss_kernels.gate.targets import TARGETS
from oss_kernels.shapes import MODELS

GOOD = Report(
    registers=64, stack=0, spills=0, shared=1024, wide_loads=4, loads=5, matrix=8, warp_group=8,
    flushes=0,
)  # fmt: skip
CASE = Case("x", (), 1, 1, frozenset({"wide loads", "matrix instructions", "subnormals"}))
BY_NAME = {target.name: target for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_good_code_gets_no_complaint(target):
    assert find_complaints(CASE, [GOOD], target) == []


@pytest.mark.parametrize(
    ("target", "fault", "said"),
    [
        ("sm_80", {"stack": 8}, "spills 8 bytes"),
        ("sm_80", {"spills": 3}, "in 3 instructions"),
        ("gfx942", {"shared": 65537}, "needs 65537 bytes of shared memory, but has 65536"),
        ("sm_80", {"flushes": 2}, "flushes subnormals in 2"),
        ("sm_80", {"wide_loads": 0}, "no 128-bit load"),
        ("sm_80", {"matrix": 0}, "no matrix instructions"),
        ("sm_90", {"warp_group": 0}, "no matrix instructions of a warp group"),
    ],
)
def test_each_fault_gets_a_complaint(target, fault, said):
    (sentence,) = find_complaints(CASE, [replace(GOOD, **fault)], BY_NAME[target])
    assert said in sentence


def test_an_instruction_that_no_case_needs_may_be_absent():
    bad = replace(GOOD, wide_loads=0, matrix=0, warp_group=0, flushes=1)
    assert find_complaints(replace(CASE, needs=frozenset()), [bad], BY_NAME["sm_90"]) == []


def test_one_kernel_per_case_must_meet_its_needs_and_none_may_spill():
    bare = replace(GOOD, wide_loads=0, matrix=0)
    assert find_complaints(CASE, [bare, GOOD], BY_NAME["sm_80"]) == []
    spilling = replace(GOOD, spills=1)
    assert len(find_complaints(CASE, [spilling, GOOD, spilling], BY_NAME["sm_80"])) == 2


@pytest.fixture
def fake_compiler(monkeypatch):
    """`fake_compiler(report)`: every kernel seems to compile to this report; nothing is
    compiled.
    """

    def make(report: Report) -> None:
        monkeypatch.setattr(command, "INTERPRETED", False)
        monkeypatch.setattr(command, "build", lambda launch, target: None)
        monkeypatch.setattr(command, "report", lambda built, target: report)

    return make


@pytest.mark.parametrize(("spills", "status"), [(0, 0), (3, 1)])
def test_a_complaint_sets_the_exit_status(monkeypatch, capsys, fake_compiler, spills, status):
    fake_compiler(replace(GOOD, spills=spills))
    monkeypatch.setattr(sys, "argv", ["gate", "--operation", "rms_norm", "--target", "sm_90"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == status
    assert ("in 3 instructions" in capsys.readouterr().out) == bool(status)


def test_by_turns_compiles_each_case_for_one_target_and_splits_each_operation_in_half(
    fake_compiler,
):
    fake_compiler(GOOD)

    def cases(**options):
        pair = [BY_NAME["sm_90"], BY_NAME["gfx942"]]
        rows = command.compile_cases(["experts", "mxfp4"], pair, MODELS, **options)
        return [(row["operation"], row["model"], row["case"], row["target"]) for row in rows]

    every, turns = cases(), cases(by_turns=True)
    assert sorted(row[:3] for row in turns) == sorted({row[:3] for row in every})
    for operation, target in product(("experts", "mxfp4"), ("sm_90", "gfx942")):
        count = sum(row[0] == operation for row in turns)
        assert sum((row[0], row[-1]) == (operation, target) for row in turns) == count / 2
