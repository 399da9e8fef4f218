"""The gate's complaints about hand-made reports of poor code."""

import sys
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from oss_kernels.cases import Case, Need
from oss_kernels.gate import command
from oss_kernels.gate.judge import find_complaints
from oss_kernels.gate.report import Report, find_loops
from oss_kernels.gate.targets import TARGETS
from oss_kernels.shapes import MODELS

GOOD = Report(
    registers=64, stack=0, spills=0, shared=1024, wide_loads=4, loads=5, matrix=8, warp_group=8,
    flushes=0, copies=2, exchanges=0,
)  # fmt: skip
CASE = Case("x", (), 1, 1, frozenset(get_args(Need)))
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
        ("sm_120", {"copies": 0}, "no asynchronous copy in a loop"),
        ("gfx1100", {"exchanges": 5}, "moves numbers between lanes in 5 instructions"),
    ],
)
def test_each_fault_gets_a_complaint(target, fault, said):
    (sentence,) = find_complaints(CASE, [replace(GOOD, **fault)], BY_NAME[target])
    assert said in sentence


def test_an_instruction_that_no_case_needs_may_be_absent():
    bad = replace(GOOD, wide_loads=0, matrix=0, warp_group=0, flushes=1, copies=0, exchanges=1)
    assert find_complaints(replace(CASE, needs=frozenset()), [bad], BY_NAME["sm_90"]) == []


def test_one_kernel_per_case_must_meet_its_needs_and_none_may_spill():
    bare = replace(GOOD, wide_loads=0, matrix=0, copies=0)
    assert find_complaints(CASE, [bare, GOOD], BY_NAME["sm_80"]) == []
    spilling = replace(GOOD, spills=1)
    assert len(find_complaints(CASE, [spilling, GOOD, spilling], BY_NAME["sm_80"])) == 2


def test_amd_needs_no_asynchronous_copies_and_its_wide_waves_may_exchange():
    assert find_complaints(CASE, [replace(GOOD, copies=0)], BY_NAME["gfx1100"]) == []
    assert find_complaints(CASE, [replace(GOOD, exchanges=9)], BY_NAME["gfx942"]) == []


def test_loops_are_read_from_a_label_to_the_branch_back_to_it():
    ptx = """
    st.shared.b32 [%r1], %r2;
$L__BB0_1:
    @%p1 bra $L__BB0_3;
$L__BB0_2:
    cp.async.cg.shared.global [ %r3 + 0 ], [ %rd1 + 0 ], 0x10;
    @%p2 bra $L__BB0_2;
$L__BB0_3:
    shfl.sync.bfly.b32 %r5, %r6, 16, 31, -1;
"""
    loop = find_loops(ptx, r"\$L__BB\w+")
    assert "cp.async.cg" in loop
    assert not any(word in loop for word in ("st.shared", "shfl", "L__BB0_1", "L__BB0_3"))
    amd = "a\n.LBB0_2:\n\tds_write_b32 v1\n\ts_cbranch_scc1 .LBB0_2\nb"
    assert find_loops(amd, r"\.LBB\w+").split() == [".LBB0_2:", "ds_write_b32", "v1"]


def test_by_turns_gives_every_target_and_every_case_a_turn(fake_compiler):
    fake_compiler(GOOD)
    rows = list(command.compile_cases(["rms_norm", "experts"], TARGETS, MODELS, by_turns=True))
    assert {(row["operation"], row["target"]) for row in rows} == {
        (operation, target.name) for operation in ("rms_norm", "experts") for target in TARGETS
    }
    assert len({(row["operation"], row["model"], row["case"]) for row in rows}) == 2 + 8
    assert len(rows) == 16


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
