"""The CPU bench times by turns, keeps quiet samples only, and its table has every row."""

from dataclasses import asdict

import pytest

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.bench import cpu
from oss_kernels.bench.cpu_work import Timed
from oss_kernels.bench.quiet import Busy

READING, OURS = "reading memory", "ours"


@pytest.fixture
def bench(monkeypatch):
    """`bench(others)`: rows of two things, with the shares that others had, sample by sample."""

    def run(others, wanted=2):
        calls, shares = [], iter(others)
        monkeypatch.setattr(cpu, "SAMPLE", 0)
        monkeypatch.setattr(Busy, "others_since", lambda *_: next(shares))
        things = [
            Timed(
                name, size, flops, [lambda name=name, n=n: calls.append((name, n)) for n in (0, 1)]
            )
            for name, size, flops in ((READING, 1000, 0), (OURS, 500, 8))
        ]
        return cpu.measure(things[0], things[1:], wanted), calls[4:]  # without the first of each

    return run


def test_things_and_their_copies_take_turns(bench):
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


def test_a_disturbed_sample_is_thrown_away_and_made_again(bench):
    rows, _ = bench([0.0, 0.5, 0.0, 0.0, 0.09, 0.0])
    assert [(row.samples, row.discarded) for row in rows] == [(2, 0), (2, 2)]


def test_without_a_quiet_sample_there_is_no_row(bench):
    rows, _ = bench([0.0, 1.0] * 2 + [1.0] * 8)
    assert [row.name for row in rows] == [READING]
    assert bench([1.0] * 12)[0] == []


def test_the_table_has_a_line_for_each(bench):
    rows, _ = bench([0.0] * 4)
    reading, *others = map(asdict, rows)
    lines = cpu.table({"reading": reading, "rows": others}).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith(f"| {READING} |")
    assert lines[3].startswith(f"| {OURS} |")
