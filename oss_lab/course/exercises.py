"""What a sheet of exercises calls: check a function, get a hint, ask nano with the function in it.

    check(my_visible_keys)        right, or what is wrong
    hint(my_visible_keys, 1)      2 and 3 say more, and 4 is a solution
    ask_nano(my_visible_keys)     nano answers with your function in place of its own

The exercise is found by the function's name.
"""

import inspect
import math
import pkgutil
import textwrap
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any

import torch

from oss_lab.course import sheets
from oss_lab.course.exercise import Exercise, Sheet, Verdict, is_untouched, judge
from oss_lab.course.instruments import QUESTION
from oss_lab.course.parts import OUTSIDE_THE_MODEL
from oss_lab.course.progress import keep_part, record
from oss_lab.errors import LabError, explain_error
from oss_lab.lab import Lab
from oss_lab.lab.loading import load
from oss_lab.record.reply import Reply

ANSWER = "21514"  # to QUESTION
Function = Callable[..., Any]


def list_sheets() -> Iterator[Sheet]:
    """The sheets of all lessons, in order."""
    for module in sorted(each.name for each in pkgutil.iter_modules(sheets.__path__)):
        yield import_module(f"{sheets.__name__}.{module}").SHEET


@cache
def list_exercises() -> dict[str, Exercise]:
    """Every exercise by the name of its function."""
    return {each.name: each for sheet in list_sheets() for each in sheet.exercises}


def find_exercise(function: Function) -> Exercise:
    """The exercise of this function. Raises LabError if there is none of that name."""
    if not callable(function):
        raise LabError(f"expected the function itself, as in check(my_merge), got {function!r}")
    name = getattr(function, "__name__", repr(function))
    if name not in list_exercises():
        close = get_close_matches(name, list_exercises(), n=1)
        advice = f"did you mean {close[0]!r}?" if close else "keep the name that the sheet gives it"
        raise LabError(f"there is no exercise {name!r}; {advice}")
    return list_exercises()[name]


def check(function: Function) -> None:
    """Print whether the function is right, and otherwise what is wrong with it.

    A function that is right and replaces a part of nano is copied to `my_parts.py`.
    """
    exercise = find_exercise(function)
    verdict = judge(exercise, function)
    print(textwrap.fill(f"{exercise.name}: {verdict.text}", 100, break_on_hyphens=False))
    if verdict.kind == "untouched":
        return
    is_right = verdict.kind == "right"

    def count(earlier: dict[str, Any] | None) -> dict[str, Any]:
        attempts = earlier["attempts"] + 1 if earlier else 1
        return {"attempts": attempts, "right": is_right, "last": verdict.text}

    record("exercises", exercise.name, count)
    if is_right and exercise.part:
        print(keep(exercise, function))


def keep(exercise: Exercise, function: Function) -> str:
    """Copy the function to the file of parts, if it works there; a sentence about it."""
    assert exercise.part is not None
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return "Its source was not found, so it was not copied to my_parts.py."
    source = "\n".join(filter(None, (exercise.imports, source)))
    space: dict[str, Any] = {"math": math, "torch": torch}
    try:
        exec(compile(source, "my_parts.py", "exec"), space)  # the learner's own function, once more
        verdict = judge(exercise, space[exercise.name])
    except Exception as error:  # such as a decorator or an annotation from another cell
        verdict = Verdict("raised", f"raised {explain_error(error)}")
    if verdict.kind != "right":
        return (
            "It was not copied to my_parts.py, because it needs a name from another cell: put"
            f" everything it needs inside the function (by itself: {verdict.text})."
        )
    keep_part(exercise.part, source)
    return f"Copied to my_parts.py: nano can run on it, as its part {exercise.part}."


def hint(function: Function, number: int = 1) -> None:
    """Print a hint: 1 is the smallest, and the one after the last is a solution.

    Raises:
        LabError: there is no such hint.
    """
    exercise = find_exercise(function)
    texts = (*exercise.hints, f"A solution:\n\n{inspect.getsource(exercise.solution)}")
    if type(number) is not int or not 1 <= number <= len(texts):
        raise LabError(f"hint must be 1 to {len(texts)} (a solution), got {number!r}")
    print(texts[number - 1])


@cache
def load_nano() -> Lab:
    return load("nano", verbose=False)


def ask_nano(function: Function, question: str = QUESTION, expected: str = ANSWER) -> None:
    """Ask nano with the function in place of its own part, and compare the logits.

    Prints the answer, and the largest change of a logit over the prompt and nano's own reply. A
    part that computes no logits may change the ids of the prompt or of the reply instead.

    Raises:
        LabError: the exercise is not about a part of nano.
    """
    exercise = find_exercise(function)
    if exercise.part is None:
        raise LabError(f"{exercise.name} is not a part of nano; use check({exercise.name})")
    if is_untouched(function):
        print(f"nano waits for {exercise.name}.")
        return
    lab = load_nano()
    mine = lab.with_parts(**{exercise.part: function})
    answered = mine.chat(question, effort="high")
    verdict = "right" if answered.final == expected else f"wrong, it is {expected}"
    print(f"nano with {exercise.name}: {answered.final or 'no answer'} ({verdict})")
    reply = lab.chat(question, effort="high")
    if exercise.part in OUTSIDE_THE_MODEL:
        same = ("the same" if each else "different" for each in compare_ids(answered, reply))
        print("ids of the prompt: {}; ids of the reply: {}".format(*same))
        return
    ids = [*reply.prompt_tokens, *reply.ids]
    change = float((mine.logits(ids) - lab.logits(ids)).abs().max())
    print(f"largest change of a logit over {len(ids)} tokens: {change:.2g}")


def compare_ids(ours: Reply, theirs: Reply) -> tuple[bool, bool]:
    """Whether two replies have the same prompt, and whether they are the same."""
    return ours.prompt_tokens == theirs.prompt_tokens, ours.ids == theirs.ids
