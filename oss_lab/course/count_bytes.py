"""Run a kernel without Triton, and count the bytes that it moves.

    def double(x, out, n, BLOCK: tl.constexpr):
        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(out + place, 2 * tl.load(x + place, mask=place < n), mask=place < n)

    traffic = count_bytes(double, 3, x, out, 70, BLOCK=32)      # three programs
    traffic.loaded                                              # {"x": 280}

In the kernel's own module, `tl` may be Triton's or `oss_lab.course.tile_language`.
"""

import inspect
import itertools
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

from torch import Tensor

from oss_lab.course import tile_language
from oss_lab.course.tile_language import Pointer, Run, current
from oss_lab.errors import LabError


def count_bytes(
    kernel: Callable[..., Any], grid: int | tuple[int, ...], *arguments: Any, **constants: Any
) -> Run:
    """Run every program of the grid, one after the other, and return what they moved together.

    Args:
        kernel: a plain function, which takes its operations from `tl`. It is not changed: a copy
            with `tile_language` as its `tl` runs.
        grid: the number of programs, or one number per axis.
        arguments: tensors, which the kernel receives as addresses, and numbers.

    Raises:
        LabError: a tensor is not contiguous, or a program uses a place outside of a tensor.
    """
    function = cast(FunctionType, kernel)
    copy = FunctionType(
        function.__code__,
        function.__globals__ | {"tl": tile_language},
        argdefs=function.__defaults__,
        closure=function.__closure__,
    )
    bound = inspect.signature(kernel).bind(*arguments, **constants)
    given = {name: to_pointer(name, value) for name, value in bound.arguments.items()}
    run = Run()
    token = current.set(run)
    try:
        axes = (grid,) if isinstance(grid, int) else grid
        for run.index in itertools.product(*map(range, axes)):
            copy(**given)
    finally:
        current.reset(token)
    return run


def to_pointer(name: str, value: Any) -> Any:
    """A tensor's first address; other values unchanged."""
    if not isinstance(value, Tensor):
        return value
    if not value.is_contiguous():
        raise LabError(f"{name} is not contiguous; pass {name}.contiguous()")
    return Pointer(name, value.view(-1))
