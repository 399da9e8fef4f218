"""Checks the arguments of public functions, so a wrong type becomes one sentence.

    @check_arguments
    def lens(lab: "Lab", of: "Prompt", positions: Sequence[int] | None = None, ...) -> Lens: ...

The annotations say what is checked: integers and numbers of any library, text, booleans, literals,
classes, and lists of these. Other annotations are left to the function, which also checks bounds.
A quoted class is compared by its name, because its module may not be imported here.
"""

import inspect
import math
import reprlib
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, Unpack, get_args, get_origin

import numpy as np

from oss_lab.errors import LabError
from oss_lab.hooks.selection import is_integer

P = ParamSpec("P")
R = TypeVar("R")

SOURCES = {
    "Lab": "a Lab such as `oss_lab.load()` returns",
    "Reply": "a Reply such as `lab.chat` returns",
    "Trace": "a Trace such as `lab.trace` returns",
    "Node": "a Node of a Tree",
    "Lens": "a Lens such as `lab.lens` returns",
    "Patching": "a Patching such as `lab.patch` returns",
    "Attribution": "an Attribution such as `attribution` returns",
    "Counterfactuals": "the Counterfactuals that `counterfactuals` returns",
    "Corpus": "a Corpus such as `build_routing_corpus` returns",
    "ModelConfig": "a ModelConfig such as `lab.config`",
    "Encoding": "a vocabulary such as `lab.tokenizer`",
    "Conversation": "a Conversation",
    "Sampling": "a Sampling",
    "Target": "a Target",
    "TokenLabel": "a TokenLabel such as `plots.label_reply` returns",
    "CommitmentStep": "a step such as `commitment` returns",
    "Score": "a Score",
}
"""Classes that users get from elsewhere, and where. These are also checked if they are quoted."""


@dataclass(frozen=True)
class Expectation:
    """What an argument may be: in words, and as a test."""

    what: str
    fits: Callable[[Any], bool]


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function raise LabError for an argument of the wrong type."""
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    annotations = {each.name: each.annotation for each in parameters}
    rest = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), "")
    if rest and get_origin(annotations[rest]) is Unpack:  # the keywords of a TypedDict
        annotations |= get_args(annotations[rest])[0].__annotations__
    read = {name: read_annotation(annotation) for name, annotation in annotations.items()}
    expected = {name: found for name, found in read.items() if found is not None}
    if expected.get("seed") is INTEGER:
        expected["seed"] = SEED

    @wraps(function)
    def checked(*args: P.args, **given: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **given).arguments
        except TypeError:
            return function(*args, **given)  # Python's own sentence about a missing argument
        for name, value in (bound | bound.get(rest, {})).items():
            if name in expected:
                check_value(name, expected[name], value)
        return function(*args, **given)

    return checked


def check_fields(instance: Any) -> None:
    """Raise LabError for a field of a dataclass with a value of the wrong type."""
    for each in fields(instance):
        if (expected := read_annotation(each.type)) is not None:
            check_value(each.name, expected, getattr(instance, each.name))


def check_value(what: str, expected: Expectation, value: object) -> None:
    """Raise LabError if a value is not what is expected."""
    if not expected.fits(value):
        raise LabError(f"{what} must be {expected.what}, got {describe(value)}")


def describe(value: object) -> str:
    """A short description: type and shape of an array, the repr of anything else."""
    if shape := getattr(value, "shape", ()):
        kind = str(getattr(value, "dtype", "")).removeprefix("torch.")
        return f"{type(value).__name__} of {kind} {list(shape)}"
    return " ".join(reprlib.repr(value).split())


def read_annotation(annotation: Any) -> Expectation | None:
    """What an annotation expects; None if it is left to the function."""
    if isinstance(annotation, str):
        return read_quoted(annotation)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return PLAIN.get(annotation) or read_quoted(annotation.__name__)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return expect_any(parts)
    if origin is Literal:
        words = join_or(map(repr, parts))
        return Expectation(words, lambda value: isinstance(value, str) and value in parts)
    if origin is tuple and parts == (int, int):
        return Expectation("a pair of integers", is_pair)
    if origin in (Iterable, Collection, Sequence):
        return expect_list(read_annotation(parts[0]), origin)
    if origin is Mapping:
        return Expectation("a dictionary", lambda value: isinstance(value, Mapping))
    return None


def read_quoted(annotation: str) -> Expectation | None:
    """What the quoted name of a class, or a sequence of them, expects."""
    if annotation.startswith("Sequence["):
        return expect_list(read_quoted(annotation[len("Sequence[") : -1]), Sequence)
    return expect_class(annotation) if annotation in SOURCES else None


def expect_class(name: str) -> Expectation:
    """An object of the class with this name, or of a subclass."""
    return Expectation(
        SOURCES[name], lambda value: name in (each.__name__ for each in type(value).__mro__)
    )


def expect_any(parts: Sequence[Any]) -> Expectation | None:
    """One of several annotations; None unless all of them are understood."""
    several = [read_annotation(part) for part in parts]
    found = [each for each in several if each is not None]
    if len(found) < len(several):
        return None
    words = dict.fromkeys(each.what for each in found if each is not NOTHING)
    return Expectation(join_or(words), lambda value: any(each.fits(value) for each in found))


def join_or(words: Iterable[str]) -> str:
    """The words as alternatives.

    >>> join_or(["low", "medium", "high"])
    'low, medium or high'
    """
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def expect_list(element: Expectation | None, origin: Any) -> Expectation:
    """A list, range or array. Its elements are checked, unless reading it uses it up."""
    words = f"a list, each {element.what}" if element else "a list"
    if element in (INTEGER, TEXT):
        words = "a list of integers" if element is INTEGER else "a list of names"

    def fits(value: Any) -> bool:
        if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
            return False
        if not getattr(value, "ndim", 1):
            return False
        if not isinstance(value, Sized):
            return origin is Iterable
        if origin is Sequence and not hasattr(value, "__getitem__"):
            return False
        return origin is Iterable or element is None or all(map(element.fits, value))

    return Expectation(words, fits)


def is_pair(value: Any) -> bool:
    """Whether it is two integers."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(is_integer, value))


def is_number(value: Any) -> bool:
    """Whether it is one number other than NaN, from any library; booleans do not count."""
    if isinstance(value, str | bytes | bool | np.bool_) or getattr(value, "ndim", 0):
        return False
    try:
        return not math.isnan(float(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


TRACE = expect_class("Trace")
INTEGER = Expectation("an integer", is_integer)
SEED = Expectation("an integer of 0 or more", lambda value: is_integer(value) and value >= 0)
TEXT = Expectation("text", lambda value: isinstance(value, str))
NOTHING = Expectation("None", lambda value: value is None)
PLAIN = {
    bool: Expectation("True or False", lambda value: isinstance(value, bool | np.bool_)),
    int: INTEGER,
    float: Expectation("a number", is_number),
    str: TEXT,
    slice: Expectation("a slice such as slice(5, 9)", lambda value: isinstance(value, slice)),
    Path: Expectation("a path", lambda value: isinstance(value, Path)),
    type(None): NOTHING,
}
