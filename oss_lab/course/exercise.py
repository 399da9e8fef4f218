"""An exercise: a function that the learner writes, and how it is judged.

The learner's function is called on the exercise's cases and compared with the solution. If it
differs, it is compared with the misconceptions: wrong solutions whose docstrings are the
diagnoses. So a checker can name a mistake only if its cases tell that mistake from every other
one, which a test asserts for every exercise.
"""

import dis
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from oss_lab.course.specs import describe, is_plain
from oss_lab.errors import explain_error, shorten, show_safely

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


def is_close(expected: Any, found: Any, tolerance: float) -> bool:
    """Whether two results are equal: tensors and floats within the tolerance, the rest exactly."""
    if isinstance(expected, Tensor):
        return (
            isinstance(found, Tensor)
            and is_alike(expected, found)
            and measure_difference(expected, found) <= tolerance
        )
    if isinstance(expected, tuple | list):
        return (
            isinstance(found, tuple | list)
            and len(found) == len(expected)
            and all(is_close(a, b, tolerance) for a, b in zip(expected, found, strict=True))
        )
    if isinstance(expected, float):
        return isinstance(found, int | float) and is_near(expected, found, tolerance)
    return type(expected) is type(found) and expected == found


def is_alike(expected: Tensor, found: Tensor) -> bool:
    """Whether both are ordinary tensors of equal shape, dtype and device."""
    kinds = [is_plain(each) and (each.shape, each.dtype, each.device) for each in (expected, found)]
    return kinds[0] == kinds[1]


def is_near(expected: float, found: float, tolerance: float) -> bool:
    """Whether two numbers are equal within the tolerance; an infinity equals only itself."""
    if math.isnan(expected):
        return found != found
    largest = tolerance * max(1.0, abs(expected)) if math.isfinite(expected) else 0.0
    return expected == found or expected - largest <= found <= expected + largest


def measure_difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference of two tensors, relative to their largest number or to 1.

    NaN equals NaN, because a misconception may give NaN. Integers are equal or infinitely far.
    """
    if torch.equal(expected, found) or not expected.numel():
        return 0.0
    if not expected.is_floating_point():
        return math.inf
    a, b = expected.double(), found.double()
    same = (a == b) | (a.isnan() & b.isnan())  # infinities, whose difference is not a number
    off = (a - b).abs().masked_fill(same, 0.0).nan_to_num(float("inf"), float("inf")).max()
    size = a[a.isfinite()].abs().max() if a.isfinite().any() else torch.tensor(1.0)
    return float(off / size.clamp(min=1.0))


def explain_difference(exercise: Exercise, expected: list[Any], found: list[Any]) -> str:
    """The first case that differs: its arguments, what was returned and what was expected."""
    wrong = [
        n
        for n, pair in enumerate(zip(expected, found, strict=True))
        if not is_close(*pair, exercise.tolerance)
    ]
    first = wrong[0]
    arguments = list(exercise.cases())[first]
    got, wanted = found[first], expected[first]
    text = f"wrong on {len(wrong)} of {len(expected)} cases. With {show_arguments(arguments)} "
    if isinstance(wanted, Tensor) and is_plain(got) and got.shape == wanted.shape:
        if not is_alike(wanted, got):
            return text + f"it returned {describe(got)}; expected {describe(wanted)}"
        place = ((got.double() - wanted.double()).nan_to_num(1e9).abs()).argmax()
        place = [int(n) for n in torch.unravel_index(place, wanted.shape)]
        where = f" at {place}" if place else ""
        value, right = (float(each[tuple(place)]) for each in (got, wanted))
        return text + f"it returned {value:.6g}{where}; expected {right:.6g}"
    return text + f"it returned {show_value(got)}; expected {show_value(wanted)}"


def show_arguments(arguments: tuple[Any, ...]) -> str:
    return ", ".join(map(show_value, arguments))


def show_value(value: Any) -> str:
    if isinstance(value, Tensor):
        is_small = is_plain(value) and value.numel() <= 8 and not value.is_meta
        return f"tensor {value.tolist()}" if is_small else describe(value)
    return shorten(show_safely(value), 120)


def is_untouched(function: Function) -> bool:
    """Whether the function is still the stub: it does nothing and returns nothing."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = [each for each in dis.get_instructions(code) if each.opname not in ("RESUME", "NOP")]
    empty = ("LOAD_CONST", "RETURN_CONST", "RETURN_VALUE")
    does_nothing = all(each.opname in empty for each in steps)
    return does_nothing and all(each.argval in (None, ...) for each in steps)
