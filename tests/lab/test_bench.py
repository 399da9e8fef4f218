"""The benchmark runs and prints its report. Its numbers are not tested."""

import json
import sys

import pytest
import torch

from oss_lab.bench import __main__ as bench
from oss_lab.bench import sides, tasks


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["bench", "--threads", threads, *arguments])
    status = bench.main()
    return status, *capsys.readouterr()


def test_reports_every_task_of_both_sides(monkeypatch, capsys, write_tiny):
    pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setattr(tasks, "PREFILLS", (16, 64))
    for module in (sides, tasks):
        monkeypatch.setattr(module, "NEW", 4)
    status, out, _ = run(
        monkeypatch, capsys, "--checkpoint", str(write_tiny()), "--repeats", "1", "--json"
    )
    assert status == 0
    report = json.loads(out)
    assert report["repeats"] == 1
    for row in report["rows"]:
        for side in (row["ours"], row["theirs"]):
            assert 0 < side["low"] <= side["median"] <= side["high"]
        assert row["ratio"] > 0
    assert {row["unit"] for row in report["rows"]} == {"tok/s", "ms"}


def test_missing_transformers_is_reported_in_one_sentence(monkeypatch, capsys, write_tiny):
    monkeypatch.setitem(sys.modules, "transformers", None)
    status, out, err = run(monkeypatch, capsys, "--checkpoint", str(write_tiny()))
    assert (status, out) == (1, "")
    assert err == (
        'oss_lab.bench: transformers is not installed: `pip install "oss-lab[test]"` adds it\n'
    )


@pytest.mark.parametrize("option", ["--repeats", "--threads"])
@pytest.mark.parametrize("number", ["0", "-3", "two"])
def test_counts_are_positive_integers(monkeypatch, capsys, option, number):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, capsys, f"{option}={number}")
    assert ended.value.code == 2
    expected = f"{option}: expected a whole number of 1 or more, got '{number}'"
    assert expected in capsys.readouterr().err
