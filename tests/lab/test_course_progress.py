"""The learner's files: parts, progress, predictions, and a reset that loses nothing."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from oss_lab.course.learner_files import LOCK
from oss_lab.course.map import BOXES, show_map
from oss_lab.course.parts import PARTS
from oss_lab.course.predictions import calibration, predict, reveal
from oss_lab.course.progress import (
    find_folder,
    keep_part,
    load_my_parts,
    read_parts,
    read_progress,
    reset,
)
from oss_lab.errors import LabError

TWO = "def my_swiglu(gate, up, alpha, limit):\n    return 2\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OSS_LAB_COURSE", str(tmp_path))
    return tmp_path


def test_a_later_version_of_a_part_replaces_the_earlier_one():
    keep_part("rotate", "def my_rotate(x, cos, sin):\n    return 0\n")
    keep_part("swiglu", TWO.replace("2", "1"))
    keep_part("rotate", "def my_rotate(x, cos, sin):\n\n    return math.pi\n")
    keep_part("swiglu", TWO)
    assert list(read_parts()) == ["rotate", "swiglu"]
    mine = load_my_parts()
    assert (mine["rotate"](1, 2, 3), mine["swiglu"](1, 2, 3, 4)) == (pytest.approx(3.14159), 2)


def test_no_file_is_no_part(folder):
    assert load_my_parts() == {} == read_parts()
    (folder / "my_parts.py").write_text("1 +")
    with pytest.raises(LabError, match=r"my_parts.py raised SyntaxError.*; correct it"):
        load_my_parts()


def test_reset_keeps_every_earlier_version(folder):
    for _ in range(2):
        keep_part("swiglu", TWO)
        predict("answer", 3)
        reset()
    found = sorted(file.name for file in folder.iterdir())
    assert found == [
        f"my_{kind}.backup{n}.{end}"
        for kind, end in (("parts", "py"), ("progress", "json"))
        for n in (1, 2)
    ]
    assert read_progress() == {"exercises": {}, "predictions": {}}


def test_a_damaged_progress_file_is_one_sentence(folder):
    (folder / "my_progress.json").write_text("[1]")
    with pytest.raises(LabError, match="is not a progress file; start again"):
        predict("answer", 3)


ENTRY = {"attempts": 1, "right": True, "last": ""}
GUESS = {"guess": 1, "sure": 0.5, "right": True}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"exercises": [], "predictions": []}',
        *(
            json.dumps({"exercises": {"a": entry}, "predictions": {}})
            for entry in (3, {}, ENTRY | {"attempts": "1"}, ENTRY | {"right": 1})
        ),
        *(
            json.dumps({"exercises": {}, "predictions": {"a": entry}})
            for entry in (
                3,
                {},
                GUESS | {"sure": "1"},
                GUESS | {"guess": [1]},
                GUESS | {"right": 2},
            )
        ),
    ],
    ids=range(12),
)
def test_a_damaged_entry_is_one_sentence(folder, text):
    (folder / "my_progress.json").write_text(text)
    for use in (calibration, lambda: reveal("a", 1), lambda: predict("a", 1)):
        with pytest.raises(LabError, match="is not a progress file; start again"):
            use()
    assert (folder / "my_progress.json").read_text() == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("exit()", "raised SystemExit"),
        ("\n\n\n# part: swiglu\nx = 1", "has no function my_swiglu; repeat the exercise"),
        (b"\xff", "cannot be read: it is not UTF-8 text; correct it, or start again"),
    ],
)
def test_a_damaged_file_of_parts_is_one_sentence(folder, text, sentence):
    (folder / "my_parts.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LabError, match=sentence):
        load_my_parts()


def test_a_change_within_a_second_is_loaded(folder):
    for number in range(3):
        keep_part("swiglu", TWO.replace("2", str(number)))
        assert load_my_parts()["swiglu"](1, 2, 3, 4) == number
    assert [file.name for file in folder.iterdir()] == ["my_parts.py"]


@pytest.mark.parametrize("use", [lambda: predict("a", 1), lambda: keep_part("swiglu", TWO)])
def test_a_folder_that_cannot_be_written_to_is_one_sentence(use, folder, monkeypatch):
    monkeypatch.setenv("OSS_LAB_COURSE", str(folder / "gone"))
    with pytest.raises(LabError, match=r"OSS_LAB_COURSE names .*gone, which is not a folder"):
        use()
    monkeypatch.setenv("OSS_LAB_COURSE", str(folder))

    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(LabError, match=r"your files cannot be saved in .*: Read-only file system"):
        use()


def test_two_writers_lose_nothing(folder):
    """Without the lock, 40 of 100 entries were lost, and one writer raised FileNotFoundError."""
    writer = (
        "import sys; from oss_lab.course.predictions import predict\n"
        "for n in range(50): predict(sys.argv[1] + str(n), n)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", writer, name], stdout=subprocess.DEVNULL)
        for name in "ab"
    ]
    assert [each.wait(100) for each in running] == [0, 0]
    assert len(read_progress()["predictions"]) == 100
    assert [file.name for file in folder.iterdir()] == ["my_progress.json"]


def test_the_lock_of_a_killed_writer_is_removed(folder):
    (lock := folder / LOCK).mkdir()
    os.utime(lock, (0, 0))
    predict("a", 1)
    assert not lock.exists()


def test_the_folder_is_that_of_the_notebooks(folder, monkeypatch):
    monkeypatch.delenv("OSS_LAB_COURSE")
    (folder / "exercises").mkdir()
    monkeypatch.chdir(folder / "exercises")
    assert find_folder() == folder
    monkeypatch.chdir(folder)
    assert find_folder() == folder
    (folder / "exercises" / "exercises").mkdir()  # the notebooks are in a folder of that name
    monkeypatch.chdir(folder / "exercises")
    assert find_folder() == folder / "exercises"


@pytest.mark.parametrize(
    ("guess", "result", "verdict"),
    [(3, 3, "right"), (3, 4, "not right"), ((1, 5), 5, "right"), ((1, 5), 6, "not right"),
     ("The Sink", "the sink", "right"), (True, False, "not right"),
     ((1, 5), "the sink", "not right"), ((0, 5), True, "not right"), (1, True, "not right"),
     (True, np.True_, "right"), ("yes", True, "right"), (3, torch.tensor(3), "right"),
     (3, [3, 4, 5], "not right"), ((5, 1), 2, "right"), (1, torch.ones(2), "not right"),
     ("Yes", True, "right"), ("True", True, "right"), ("no", True, "not right")],
)  # fmt: skip
def test_a_prediction_is_compared_with_the_result(guess, result, verdict, capsys):
    predict("it", guess, sure=0.75)
    reveal("it", result)
    assert capsys.readouterr().out.endswith(f", 75% sure: {verdict}.\n")


def test_without_a_prediction_the_result_is_printed(capsys):
    predict("it", ...)
    reveal("it", 5)
    calibration()
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "it: no prediction yet. Replace the three dots with your guess.",
        "it: 5",
        "No predictions yet.",
    ]


def test_calibration_compares_confidence_with_results(capsys):
    for name, guess, sure in (("a", 1, 1.0), ("b", 2, 0.5)):
        predict(name, guess, sure)
        reveal(name, 1)
    capsys.readouterr()
    calibration()
    assert capsys.readouterr().out == (
        "2 predictions: you were 75% sure on average, and 50% right.\n"
        "Brier score 0.12 (0 is perfect; always saying 50% gives 0.25).\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(([1],), "a guess is a number"), ((None,), "a guess is"), ((1, 70), "from 0 to 1, got 70"),
     ((1, True), "got True"), ((float("nan"),), "got nan"), ((10**5000,), "got <int>"),
     (((1, float("inf")),), "a guess is")],
)  # fmt: skip
def test_a_wrong_prediction_is_one_sentence(arguments, sentence):
    with pytest.raises(LabError, match=sentence):
        predict("it", *arguments)


def test_the_map_marks_the_lesson_and_the_learners_parts():
    assert "0 of its" in show_map("attention").sentence
    keep_part("swiglu", TWO)
    page = show_map("attention", "experts")
    assert "This lesson is about attention and experts. 1 of its" in page.sentence
    assert "experts 1/4" in page.html
    keep_part("rms_norm", TWO)
    assert "norm, rms" not in (text := show_map().sentence)
    assert text.endswith("are yours: rms_norm, swiglu.")
    with pytest.raises(LabError, match="there is no box 'attn'; did you mean 'attention'"):
        show_map("attn")


def test_every_part_has_a_box():
    assert set(PARTS) == {part for parts in BOXES.values() for part in parts}


def test_a_folder_that_does_not_exist_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("OSS_LAB_COURSE", str(tmp_path / "missing"))
    with pytest.raises(LabError, match="missing, which is not a folder"):
        find_folder()
