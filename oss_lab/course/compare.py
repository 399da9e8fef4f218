"""Compare what a learner's function returned with what the solution returns, and say where.

A difference is shown at its first place: a learner need not search long lists for it.
"""

import inspect
import math
import re
from typing import Any

import tiktoken
import torch
from torch import Tensor

from oss_lab.course.specs import describe, is_plain
from oss_lab.errors import shorten, show_safely
from oss_lab.harmony import Message

ADDRESS = re.compile(r"<(?:function )?[^ ]*?<?(\w+)>?(?: object)? at 0x[0-9a-f]+>")
NESTED = Tensor | Message | tuple | list
FIELDS = ("role", "channel", "recipient", "content_type", "text")


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


def explain(arguments: tuple[Any, ...], wanted: Any, got: Any, tolerance: float) -> str:
    """One sentence: the arguments, what was returned and what was expected, where they differ."""
    encoding = next((each for each in arguments if isinstance(each, tiktoken.Encoding)), None)
    text = f"With {show_arguments(arguments)} it returned "
    where = ""
    while is_sequence(wanted) and is_sequence(got):
        place = find_place(wanted, got, tolerance)
        if place >= min(len(wanted), len(got)):
            counts = f"{len(got)} values{where}, {show_value(got)}; expected {len(wanted)}, "
            return text + counts + show_value(wanted)
        if isinstance(wanted, tuple):
            where = f" in result {place}{where}"
        else:
            where = f" at [{place}] of {show_value(got)}{where}"
        wanted, got = wanted[place], got[place]
    if encoding is not None and isinstance(wanted, int) and isinstance(got, int):
        got, wanted = (f"{each} ({encoding.decode([each])!r})" for each in (got, wanted))
        return f"{text}{got}{where}; expected {wanted}"
    return text + explain_pair(wanted, got, where)


def is_sequence(value: Any) -> bool:
    return isinstance(value, tuple | list)


def find_place(wanted: Any, got: Any, tolerance: float) -> int:
    """The first place where two sequences differ; the shorter length if one begins the other."""
    pairs = list(zip(wanted, got, strict=False))
    differ = (n for n, (a, b) in enumerate(pairs) if not is_close(a, b, tolerance))
    return next(differ, len(pairs))


def explain_pair(wanted: Any, got: Any, where: str) -> str:
    """The values of two results, or of the largest difference of two tensors."""
    kinds = [name_kind(each) for each in (got, wanted)]
    if None not in kinds and kinds[0] != kinds[1]:  # the value may be right, so name the type
        return f"{kinds[0]}, {show_value(got)}{where}; expected {kinds[1]}, {show_value(wanted)}"
    if not isinstance(wanted, Tensor) or not is_plain(got):
        return f"{show_value(got)}{where}; expected {show_value(wanted)}"
    if not is_alike(wanted, got):
        return f"{describe(got)}{where}; expected {describe(wanted)}"
    largest = ((got.double() - wanted.double()).nan_to_num(1e9).abs()).argmax()
    place = tuple(int(n) for n in torch.unravel_index(largest, wanted.shape))
    where = f" at {list(place)}{where}" if place else where
    value, right = (each[place].item() for each in (got, wanted))
    if isinstance(right, float):
        return f"{value:.6g}{where}; expected {right:.6g}"
    return f"{value}{where}; expected {right}"


def name_kind(value: Any) -> str | None:
    """The type of a single number in words, or None if it is not one."""
    if is_plain(value) and not value.shape:
        return "a tensor"
    return {int: "an int", float: "a float"}.get(type(value))


def show_arguments(arguments: tuple[Any, ...]) -> str:
    """The arguments in words; ids are shown as the text that an encoding among them gives."""
    encoding = next((each for each in arguments if isinstance(each, tiktoken.Encoding)), None)
    shown: list[str] = []
    for each in arguments:
        if encoding is not None and isinstance(each, list):
            shown.append(f"the ids of {shorten(repr(encoding.decode(each)), 240)}")
        else:
            shown.append("encoding" if each is encoding else show_value(each))
    return ", ".join(shown)


def show_value(value: Any) -> str:
    """A value in few words: no memory addresses, and of large ones the shape or the beginning."""
    if isinstance(value, Tensor):
        if not is_plain(value) or value.is_meta or value.numel() > 8:
            return describe(value)
        rounded = value.double().round(decimals=4) if value.is_floating_point() else value
        return f"tensor {rounded.tolist()}"
    if inspect.isgenerator(value):
        return "a generator, which has computed nothing yet"
    if isinstance(value, Message):
        found = {"name": value.author.name} | {field: getattr(value, field) for field in FIELDS}
        fields = (f"{name}={each!r}" for name, each in found.items() if each is not None)
        return f"Message({', '.join(fields)})"
    if isinstance(value, dict):
        first = ", ".join(f"{key!r}: {show_value(value[key])}" for key in list(value)[:2])
        return f"{{{first}}}" if len(value) <= 2 else f"{{{first}, … {len(value)} in all}}"
    if is_sequence(value) and any(isinstance(each, NESTED) for each in value):
        inside = ", ".join(map(show_value, value))
        return shorten(f"({inside})" if isinstance(value, tuple) else f"[{inside}]", 300)
    text = ADDRESS.sub(r"\1", show_safely(value))
    if is_sequence(value) and len(value) > 4 and not isinstance(value[0], int | float | str):
        first = ADDRESS.sub(r"\1", show_safely(value[0]))
        return f"[{first}, … {len(value)} in all]"
    return shorten(text, 120)
