"""An exercise: a function that the learner writes, and how it is judged.

The learner's function is called on the exercise's cases and compared with the solution. If it
differs, it is compared with the misconceptions: wrong solutions whose docstrings are the
diagnoses. So a checker can name a mistake only if its cases tell that mistake from every other
one, which a test asserts for every exercise.
"""

import dis
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from oss_lab.course.compare import explain, is_close, show_arguments
from oss_lab.errors import explain_error

Function = Callable[..., Any]
Cases = Callable[[], Iterator[tuple[Any, ...]]]


def call_plainly(function: Function, arguments: tuple[Any, ...]) -> Any:
    """What the function returns for these arguments."""
    return function(*arguments)


@dataclass(frozen=True)
class Exercise:
    """One exercise of a sheet.

    Attributes:
        title: a short heading.
        text: the task as Markdown, in two or three sentences.
        solution: a function, such as `my_visible_keys`. The sheet shows its signature and
            docstring. It needs nothing from its module, so it works where it is copied to.
        cases: yields the arguments of each call of the checker: equal ones every time, but new
            objects, no two of which share memory, since a learner's function may change them.
        misconceptions: wrong solutions; the docstring of each is its diagnosis. At least three.
        hints: first in words, then the shapes, then the steps; the solution follows them.
        minutes: how long it takes.
        difficulty: 1 to 3.
        part: the part of nano that the function can replace, or None.
        imports: what the function needs besides torch and math.
        tolerance: the largest difference of a number that is right, relative to 1.
        stub: what the sheet shows instead of the solution's signature and docstring.
        call: calls a function with one case's arguments and returns what is compared. For a kernel
            that is what it stores and how many bytes it moves.
    """

    title: str
    text: str
    solution: Function
    cases: Cases
    misconceptions: tuple[Function, ...]
    hints: tuple[str, ...]
    minutes: int
    difficulty: Literal[1, 2, 3]
    part: str | None = None
    imports: str = ""
    tolerance: float = 1e-5
    stub: str | None = None
    call: Callable[[Function, tuple[Any, ...]], Any] = call_plainly

    @property
    def name(self) -> str:
        """The name of the learner's function."""
        return self.solution.__name__


@dataclass(frozen=True)
class Sheet:
    """The exercises of one lesson, from which its notebook is written.

    Attributes:
        lesson: the name of the lesson's notebook, such as "04_attention".
        title: the heading of the sheet.
        text: what to know before, as Markdown.
    """

    lesson: str
    title: str
    text: str
    exercises: tuple[Exercise, ...]


@dataclass(frozen=True)
class Verdict:
    """What a checker found: `kind` is right, wrong, raised or untouched; `text` explains it.

    `misconception` is the name of the recognized one.
    """

    kind: Literal["right", "wrong", "raised", "untouched"]
    text: str
    misconception: str | None = None


def judge(exercise: Exercise, function: Function) -> Verdict:
    """Call the function on all cases and say what is wrong with it, if anything."""
    if is_untouched(function):
        return Verdict("untouched", "not attempted yet")
    found: list[Any] = []
    for arguments in list(exercise.cases()):
        try:
            found.append(exercise.call(function, arguments))
        except (Exception, SystemExit) as error:
            reason = explain_error(error)
            return Verdict("raised", f"raised {reason} (arguments: {show_arguments(arguments)})")
    expected = run(exercise, exercise.solution)
    if agree(expected, found, exercise.tolerance):
        return Verdict("right", f"right on {len(expected)} cases")
    for wrong in exercise.misconceptions:
        if agree(run(exercise, wrong), found, exercise.tolerance):
            return Verdict("wrong", " ".join((wrong.__doc__ or "").split()), wrong.__name__)
    return Verdict("wrong", explain_difference(exercise, expected, found))


def run(exercise: Exercise, function: Function) -> list[Any]:
    """What a function returns on every case; an exception is a result, too."""
    found: list[Any] = []
    for arguments in list(exercise.cases()):
        try:
            found.append(exercise.call(function, arguments))
        except Exception as error:
            found.append(type(error).__name__)
    return found


def agree(expected: list[Any], found: list[Any], tolerance: float) -> bool:
    return all(is_close(a, b, tolerance) for a, b in zip(expected, found, strict=True))


def explain_difference(exercise: Exercise, expected: list[Any], found: list[Any]) -> str:
    """How many cases differ, and the first one: its arguments, the result and the expected one."""
    pairs = enumerate(zip(expected, found, strict=True))
    wrong = [n for n, pair in pairs if not is_close(*pair, exercise.tolerance)]
    first = wrong[0]
    arguments = list(exercise.cases())[first]
    difference = explain(arguments, expected[first], found[first], exercise.tolerance)
    return f"wrong on {len(wrong)} of {len(expected)} cases. {difference}"


def is_untouched(function: Function) -> bool:
    """Whether the function is still the stub: it does nothing and returns nothing."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = [each for each in dis.get_instructions(code) if each.opname not in ("RESUME", "NOP")]
    empty = ("LOAD_CONST", "RETURN_CONST", "RETURN_VALUE")
    does_nothing = all(each.opname in empty for each in steps)
    return does_nothing and all(each.argval in (None, ...) for each in steps)
