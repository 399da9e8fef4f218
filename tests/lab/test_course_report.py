"""`oss-lab course report`: one line per learner, from records or by running their parts again."""

import inspect
import json

import pytest

from oss_lab.cli.main import main
from oss_lab.course import report
from oss_lab.course.exercises import list_exercises
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
    assert cy == "cy   its parts could not be checked: no"


def test_a_part_that_does_not_end_is_stopped(group, monkeypatch):
    folder = group("ada", WRONG.format("0") + "\nwhile True:\n    pass\n")
    monkeypatch.setattr(report, "SECONDS", 1)
    (line,) = report.report_folder(folder, run=True)
    assert line == "ada  its parts took longer than 1 s, and were stopped"


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
    assert "has a my_progress.json; give a folder" in capsys.readouterr().err
    assert main(["course", "report", str(tmp_path / "gone")]) == 1
    assert capsys.readouterr().err.endswith("gone is not a folder\n")


def test_reset_and_solutions(group, tmp_path, capsys):
    folder = group("ada", entry=ENTRY) / "ada"
    assert main(["course", "reset", str(folder)]) == 0
    assert "kept" in capsys.readouterr().out
    assert main(["course", "reset", str(folder)]) == 0
    assert capsys.readouterr().out == "there was nothing to reset\n"
    (tmp_path / "out").mkdir()
    assert main(["course", "solutions", str(tmp_path / "out")]) == 0
    assert "return visible if window is None" in (tmp_path / "out/04_attention.ipynb").read_text()
