"""The checkers of the exercises: they accept the solution, and name every misconception.

A checker could not tell two mistakes apart if its cases were too few. So every misconception must
be recognized as itself, and no solution of the sheets may depend on its module.
"""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from oss_lab.course import exercises
from oss_lab.course.exercise import Exercise, is_untouched, judge
from oss_lab.course.exercises import ask_nano, check, hint, list_sheets
from oss_lab.course.parts import PARTS
from oss_lab.course.progress import read_parts, read_progress
from oss_lab.errors import LabError

SHEETS = list(list_sheets())
EXERCISES = [each for sheet in SHEETS for each in sheet.exercises]
MISCONCEPTIONS = [(each, wrong) for each in EXERCISES for wrong in each.misconceptions]
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def by_name(exercise: Exercise) -> str:
    return exercise.name


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    monkeypatch.setenv("OSS_LAB_COURSE", str(tmp_path))
    return tmp_path


def load_source(exercise: Exercise, source: str):
    """The function from its source alone, as a sheet defines it."""
    space: dict[str, Any] = {"math": math, "torch": torch}
    exec(exercise.imports + "\n" + source, space)
    return space[exercise.name]


@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_a_solution_is_right_wherever_it_is_copied_to(exercise):
    copied = load_source(exercise, inspect.getsource(exercise.solution))
    assert judge(exercise, copied).kind == "right"
    assert exercise.name.startswith("my_")
    assert exercise.part is None or exercise.part in PARTS
    assert exercise.part is None or exercise.name == f"my_{exercise.part}"


@pytest.mark.parametrize(
    ("exercise", "wrong"), MISCONCEPTIONS, ids=[f"{e.name}-{w.__name__}" for e, w in MISCONCEPTIONS]
)
def test_a_misconception_is_named(exercise, wrong):
    verdict = judge(exercise, wrong)
    assert verdict.misconception == wrong.__name__
    assert verdict.kind == "wrong"
    assert len(verdict.text) > 40


@pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
def test_an_exercise_has_what_a_learner_needs(exercise):
    assert len(exercise.misconceptions) >= 3
    assert len(exercise.hints) >= 3


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.lesson)
def test_a_sheet_in_the_repository_is_up_to_date_and_has_no_solution(sheet):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `test`)")
    writer = pytest.importorskip("oss_lab.course.write_sheets", reason="needs the extra `test`")
    stored = nbformat.read(NOTEBOOKS / "exercises" / f"{sheet.lesson}.ipynb", as_version=4)
    built = writer.build_notebook(sheet)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in built.cells]
    for exercise in sheet.exercises:
        stub = next(c.source for c in stored.cells if f"def {exercise.name}(" in c.source)
        assert is_untouched(load_source(exercise, stub))
    solved = writer.build_notebook(sheet, solutions=True)
    for exercise in sheet.exercises:
        source = next(c.source for c in solved.cells if f"def {exercise.name}(" in c.source)
        assert judge(exercise, load_source(exercise, source)).kind == "right"


# The judge and the functions of a sheet, on the mask's exercise.

MASK = next(each for each in EXERCISES if each.name == "my_visible_keys")


def test_an_untouched_function_is_not_attempted(capsys, course):
    def my_visible_keys(query_positions, key_positions, window):
        """The stub."""
        ...

    check(my_visible_keys)
    ask_nano(my_visible_keys)
    printed = "my_visible_keys: not attempted yet\nnano waits for my_visible_keys.\n"
    assert capsys.readouterr().out == printed
    assert not list(course.iterdir())


def test_a_function_that_raises_is_named_with_its_arguments(capsys):
    def my_visible_keys(query_positions, key_positions, window):
        return query_positions[99]

    check(my_visible_keys)
    printed = capsys.readouterr().out
    assert "raised IndexError" in printed
    assert "tensor [[0]], tensor [[0]], 32" in printed


def test_an_unknown_mistake_shows_the_first_difference(capsys):
    def my_visible_keys(query_positions, key_positions, window):
        visible = MASK.solution(query_positions, key_positions, window)
        visible[..., 0] = True
        return visible

    check(my_visible_keys)
    printed = capsys.readouterr().out
    assert "wrong on 5 of 9 cases" in printed
    assert "returned True at" in printed
    assert "expected False" in printed
    entry = read_progress()["exercises"]["my_visible_keys"]
    assert (entry["attempts"], entry["right"]) == (1, False)


def test_a_result_of_another_type_is_shown(capsys):
    def my_visible_keys(query_positions, key_positions, window):
        return MASK.solution(query_positions, key_positions, window).int()

    check(my_visible_keys)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "it returned a tensor [1, 1, 1] int32 on cpu; expected a tensor [1, 1, 1] bool" in printed
    )


def test_a_right_function_is_kept_once(capsys):
    for _ in range(2):
        check(MASK.solution)
    printed = capsys.readouterr().out
    assert "my_visible_keys: right on 9 cases" in printed
    assert "Copied to my_parts.py" in printed
    assert list(read_parts()) == ["visible_keys"]
    assert read_progress()["exercises"]["my_visible_keys"]["attempts"] == 2


def test_a_function_that_needs_another_cell_is_not_kept(capsys):
    helper = MASK.solution

    def my_visible_keys(query_positions, key_positions, window):
        return helper(query_positions, key_positions, window)

    check(my_visible_keys)
    assert "it needs a name from another cell" in " ".join(capsys.readouterr().out.split())
    assert read_parts() == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [("def ", "@other_cell\ndef "), ("query_positions,", "query_positions: other_cell,")],
)
def test_a_decorator_or_annotation_from_another_cell_is_not_kept(old, new, capsys, tmp_path):
    source = inspect.getsource(MASK.solution).replace(old, new, 1)
    (file := tmp_path / "cell.py").write_text(source)
    space: dict[str, Any] = {"other_cell": lambda function: function}
    exec(compile(source, str(file), "exec"), space)
    check(space["my_visible_keys"])
    assert "name 'other_cell' is not defined" in " ".join(capsys.readouterr().out.split())
    assert read_parts() == {}


def test_hints_end_in_a_solution(capsys):
    for number in range(1, len(MASK.hints) + 2):
        hint(MASK.solution, number)
    assert "def my_visible_keys" in capsys.readouterr().out
    with pytest.raises(LabError, match=r"hint must be 1 to 4 \(a solution\), got 5"):
        hint(MASK.solution, 5)


@pytest.mark.parametrize("given", ["my_visible_keys", None])
def test_what_is_not_a_function_is_one_sentence(given):
    with pytest.raises(LabError, match="expected the function itself, as in check"):
        check(given)


def test_an_unknown_name_is_one_sentence():
    def my_visible_key():
        pass

    with pytest.raises(LabError, match="there is no exercise 'my_visible_key'; did you mean"):
        check(my_visible_key)
    with pytest.raises(LabError, match="there is no exercise '<lambda>'; keep the name that"):
        check(lambda: None)


def test_nano_answers_with_the_function(capsys):
    ask_nano(MASK.solution)
    assert capsys.readouterr().out == (
        "nano with my_visible_keys: 21514 (right)\nlargest change of a logit over 222 tokens: 0\n"
    )


def test_a_part_around_the_model_is_judged_by_ids_and_not_by_logits(capsys):
    """A prompt cut into single bytes has other ids; nano's logits for its own ids do not change."""

    def my_merge(piece, ranks):
        return [ranks[bytes([byte])] for byte in piece]

    ask_nano(my_merge)
    printed = capsys.readouterr().out
    assert "(wrong, it is 21514)" in printed
    assert printed.endswith("ids of the prompt: different; ids of the reply: different\n")


def test_a_reply_without_an_answer_is_named(capsys):
    def my_rotate(x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return x * cos - torch.cat((b, a), dim=-1) * sin

    ask_nano(my_rotate)
    assert "nano with my_rotate: no answer (wrong, it is 21514)" in capsys.readouterr().out


def test_names_are_unique():
    names = [each.name for each in EXERCISES]
    assert len(set(names)) == len(names) == len(exercises.list_exercises())
