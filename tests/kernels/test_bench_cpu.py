"""The CPU benchmark alternates its candidates, keeps undisturbed samples only, and prints every
row."""

import time
from dataclasses import asdict

import pytest

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.bench import cpu, cpu_work
from oss_kernels.bench.cpu_work import TimedWork
from oss_kernels.bench.quiet import Busy
from oss_kernels.cases import Make, nbytes
from oss_kernels.shapes import Shapes

READING, OURS = "reading memory", "ours"


def test_others_is_the_total_without_this_process():
    before, now = Busy(everyone=10.0, own=1.0), Busy(everyone=10.5, own=1.3)
    assert now.others_since(before, 2.0) == pytest.approx(0.1)
    assert before.others_since(before, 2.0) == 0
    # Ticks are coarse, so the difference may be negative. The share is not.
    assert Busy(10.0, 1.5).others_since(before, 2.0) == 0


def test_this_process_is_counted_in_both():
    before, began = Busy.now(), time.process_time()
    while time.process_time() - began < 0.2:
        pass
    now = Busy.now()
    assert now.own - before.own > 0.15
    assert now.everyone - before.everyone > 0.15


@pytest.mark.parametrize("tokens", [1, 3])
def test_bytes_and_flops_are_counted_from_the_weights(tokens, monkeypatch):
    monkeypatch.setattr(cpu_work, "MEMORY", 1)
    make, rows, columns = Make("cpu"), 64, 128
    blocks, scales = make.mxfp4(rows, columns=columns)
    packed = cpu_work.mxfp4(make, rows, columns, tokens)
    assert packed.bytes == nbytes(blocks, scales)
    plain = cpu_work.bfloat16(make, rows, columns, tokens)
    weight = make.normal(rows, columns)
    assert {timed.bytes for timed in plain} == {nbytes(weight)}
    assert {timed.flops for timed in (packed, *plain)} == {2 * tokens * rows * columns}


@pytest.mark.parametrize("tokens", [1, 3])
def test_experts_count_the_weights_of_the_chosen_ones(tokens, monkeypatch):
    sizes = Shapes("small", layers=1, experts=8, slots=2, hidden=64, width=32)
    monkeypatch.setattr(cpu_work, "SIZE", sizes)
    made = []
    monkeypatch.setattr(cpu_work, "ExpertWeights", lambda *given: made.append(given) or given)
    used = []
    monkeypatch.setattr(cpu_work, "expert_mlp", lambda x, ids, *_, **__: used.append(ids))
    timed = cpu_work.experts(Make("cpu"), tokens)
    for call in timed.calls:
        call()
    up_blocks, up_scales, _, down_blocks, down_scales, _ = made[0]
    layer = nbytes(up_blocks, up_scales, down_blocks, down_scales)
    mean = sum(len(ids.unique()) for ids in used) / len(used)
    assert timed.bytes == int(layer / sizes.experts * mean)
    assert timed.flops == 2 * 3 * 64 * 32 * tokens * 2


@pytest.fixture
def bench(monkeypatch):
    """`bench(others)`: rows of two candidates; `others` are the CPU shares of other processes per
    sample."""

    def run(others, wanted=2):
        calls, shares = [], iter(others)
        monkeypatch.setattr(cpu, "SAMPLE", 0)
        monkeypatch.setattr(Busy, "others_since", lambda *_: next(shares))
        things = [
            TimedWork(
                name, size, flops, [lambda name=name, n=n: calls.append((name, n)) for n in (0, 1)]
            )
            for name, size, flops in ((READING, 1000, 0), (OURS, 500, 8))
        ]
        rows = cpu.measure_all(things[0], things[1:], wanted)
        return rows, calls[4:]  # without the first sample of each

    return run


def test_candidates_and_their_copies_take_turns(bench):
    rows, calls = bench([0.0] * 4)
    assert calls == [(READING, 0), (OURS, 0), (READING, 1), (OURS, 1)]
    assert [(row.name, row.samples, row.discarded) for row in rows] == [
        (READING, 2, 0),
        (OURS, 2, 0),
    ]
    reading, ours = rows
    assert reading.share_of_reading == pytest.approx(1)
    assert ours.share_of_reading == pytest.approx(
        (500 / ours.microseconds) / (1000 / reading.microseconds)
    )
    assert ours.gigaflops == pytest.approx(8 / ours.microseconds / 1000)


def test_a_disturbed_sample_is_discarded_and_repeated(bench):
    rows, _ = bench([0.0, 0.5, 0.0, 0.0, 0.09, 0.0])
    assert [(row.samples, row.discarded) for row in rows] == [(2, 0), (2, 2)]


def test_without_a_quiet_sample_there_is_no_row(bench):
    rows, _ = bench([0.0, 1.0] * 2 + [1.0] * 8)
    assert [row.name for row in rows] == [READING]
    assert bench([1.0] * 12)[0] == []


def test_the_table_has_a_line_for_each_candidate(bench):
    rows, _ = bench([0.0] * 4)
    reading, *others = map(asdict, rows)
    lines = cpu.format_table({"reading": reading, "rows": others}).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith(f"| {READING} |")
    assert lines[3].startswith(f"| {OURS} |")
