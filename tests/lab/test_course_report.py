"""`oss-lab course report`: one line per learner, from records or by running their parts again."""

import inspect
import json
import time

import pytest

from oss_lab.cli.main import main
from oss_lab.course import report
from oss_lab.course.exercises import list_exercises, list_sheets
from oss_lab.course.progress import keep_part

MASK = list_exercises()["my_visible_keys"]
WRONG = "def my_visible_keys(query_positions, key_positions, window):\n    return {}\n"
ENTRY = {"attempts": 3, "right": False, "last": "your window is one key too large"}


@pytest.fixture
def group(tmp_path, monkeypatch):
    """group(name, source=..., entry=...) makes the folder of a learner."""
    monkeypatch.setattr(report, "SECONDS", 60)

    def add(name, source=None, entry=None):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("OSS_LAB_COURSE", str(tmp_path / name))
        if source:
            keep_part("visible_keys", source)
        progress = {"exercises": {"my_visible_keys": entry} if entry else {}, "predictions": {}}
        (tmp_path / name / "my_progress.json").write_text(json.dumps(progress))
        return tmp_path

    return add


def test_a_report_repeats_what_was_recorded(group, capsys):
    group("ada", entry=ENTRY | {"right": True})
    folder = group("ben", entry=ENTRY)
    (folder / "notes").mkdir()  # not a learner
    assert main(["course", "report", str(folder)]) == 0
    ada, ben = capsys.readouterr().out.splitlines()
    assert ada.startswith("ada  1 of ")
    assert ada.endswith("nothing is wrong")
    assert ben.endswith("last diagnosis: my_visible_keys: your window is one key too large")


def test_parts_are_run_again_only_if_requested(group, capsys):
    group("ada", inspect.getsource(MASK.solution), ENTRY)
    group("ben", WRONG.format("None"), ENTRY | {"right": True})
    folder = group("cy", WRONG.format("0") + "\nraise SystemExit('no')\n")
    assert main(["course", "report", str(folder), "--run"]) == 0
    ada, ben, cy = capsys.readouterr().out.splitlines()
    assert "1 of" in ada
    assert ada.endswith("(parts checked again); nothing is wrong")
    assert "0 of" in ben
    assert "last diagnosis: my_visible_keys: not attempted yet" in ben
    assert cy.startswith("cy   its parts could not be checked: ")
    assert "my_parts.py raised SystemExit: no; correct it" in cy


def test_a_part_that_does_not_end_is_stopped(group, monkeypatch):
    folder = group("ada", WRONG.format("0") + "\nwhile True:\n    pass\n")
    monkeypatch.setattr(report, "SECONDS", 1)
    (line,) = report.report_folder(folder, run=True)
    assert line == "ada  its parts took longer than 1 s, and were stopped"


LEFT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
sys.stdout.buffer.write(b"\\xff no line end")
assert sys.stdin.read() == ""
"""


def test_what_a_part_starts_and_prints_does_no_harm(group):
    folder = group("ada", inspect.getsource(MASK.solution) + LEFT)
    began = time.monotonic()
    (line,) = report.report_folder(folder, run=True)
    assert line.endswith("(parts checked again); nothing is wrong")
    assert time.monotonic() - began < 60


def test_a_recorded_part_that_is_not_in_the_file_does_not_count_as_checked_again(group):
    folder = group("ada", entry=ENTRY | {"right": True})
    (line,) = report.report_folder(folder)
    assert line.startswith("ada  1 of")
    (line,) = report.report_folder(folder, run=True)
    assert line.startswith("ada  0 of")


def test_a_line_is_one_line_and_counts_only_exercises(group):
    folder = group("a\nda", entry=ENTRY | {"last": "bad\n\x1b[2Jben  15 of 15 parts"})
    file = folder / "a\nda" / "my_progress.json"
    found = json.loads(file.read_text())
    found["exercises"] |= {f"my_{n}": ENTRY | {"right": True} for n in range(99)}
    file.write_text(json.dumps(found))
    (line,) = report.report_folder(folder)
    assert line.isprintable()
    assert "0 of 15 parts, 0 of" in line


def test_a_damaged_file_does_not_hide_the_others(group, capsys):
    group("ada", entry=ENTRY)
    folder = group("ben")
    (folder / "ada" / "my_progress.json").write_text("{")
    assert main(["course", "report", str(folder)]) == 0
    ada, ben = capsys.readouterr().out.splitlines()
    assert "is not a progress file" in ada
    assert "nothing is wrong" in ben


def test_a_folder_without_learners_is_one_sentence(tmp_path, capsys):
    assert main(["course", "report", str(tmp_path)]) == 1
    assert "has a my_progress.json; give the folder of your notebooks" in capsys.readouterr().err
    assert main(["course", "report", str(tmp_path / "gone")]) == 1
    assert capsys.readouterr().err.endswith("gone is not a folder\n")


def test_a_learner_sees_what_is_left(group, monkeypatch, capsys):
    """Without an argument the report is about this folder; in `exercises`, about the one above."""
    folder = group("ada", entry=ENTRY | {"right": True}) / "ada"
    monkeypatch.delenv("OSS_LAB_COURSE")
    (folder / "exercises").mkdir()
    monkeypatch.chdir(folder / "exercises")
    assert main(["course", "report"]) == 0
    first, *sheets = capsys.readouterr().out.splitlines()
    assert first.startswith("1 of 15 parts, 1 of ")
    (attention,) = (line for line in sheets if line.startswith("04_attention"))
    assert attention.endswith(
        " 1 of 4; left: my_attention_scores, my_softmax_with_sink, my_cache_bytes"
    )
    assert len(sheets) == len(list(list_sheets()))


def test_reset_and_solutions(group, tmp_path, capsys):
    folder = group("ada", entry=ENTRY) / "ada"
    assert main(["course", "reset", str(folder)]) == 0
    assert "kept" in capsys.readouterr().out
    assert main(["course", "reset", str(folder)]) == 0
    assert "there was nothing to reset in " in capsys.readouterr().out
    assert main(["course", "reset", str(folder / "gone")]) == 1
    assert capsys.readouterr().err.endswith("gone is not a folder\n")
    assert main(["course", "solutions", str(tmp_path / "out")]) == 0
    assert "return visible if window is None" in (tmp_path / "out/04_attention.ipynb").read_text()
    capsys.readouterr()
    (file := tmp_path / "out/04_attention.ipynb").write_text("a learner's work")
    assert main(["course", "solutions", str(tmp_path / "out")]) == 1
    assert "has a 01_tokens.ipynb already, and nothing was written" in capsys.readouterr().err
    assert file.read_text() == "a learner's work"
    assert main(["course", "solutions", str(file)]) == 1
    assert capsys.readouterr().err.endswith("04_attention.ipynb is a file; name a folder\n")
