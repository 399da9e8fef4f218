"""The course's part of Triton's language means what it means in Triton: the kernels of the sheet
07_kernels store the same numbers in both."""

from types import FunctionType

import pytest
import torch

from oss_lab.course import tile_language as tl
from oss_lab.course.count_bytes import count_bytes
from oss_lab.course.sheets.s07_kernels import SHEET, launch

triton = pytest.importorskip("triton", reason="triton is not installed")

KERNELS = [each for each in SHEET.exercises if each.call is launch]


def argmax_and_maximum(x, out, index, N: tl.constexpr):
    place = tl.arange(0, N)
    values = tl.load(x + place)
    tl.store(index, tl.argmax(values, axis=0))
    total = tl.zeros((N,), tl.float32) + tl.max(values, axis=0) + tl.exp(values)
    tl.store(out + place, total)


def in_triton(kernel):
    """The kernel, compiled by Triton or in its interpreter."""
    changed = kernel.__globals__ | {"tl": triton.language}
    copy = FunctionType(kernel.__code__, changed, kernel.__name__)
    copy.__module__, copy.__annotations__ = kernel.__module__, kernel.__annotations__
    return triton.jit(copy)


@pytest.mark.parametrize("exercise", KERNELS, ids=lambda each: each.name)
def test_the_solution_stores_the_same_in_triton(exercise, device):
    for programs, *given in exercise.cases():
        *_, out = launch(exercise.solution, (programs, *given))
        again = [each.to(device) if isinstance(each, torch.Tensor) else each for each in given]
        place = max(n for n, each in enumerate(given) if isinstance(each, torch.Tensor))
        again[place] = torch.full_like(again[place], float("nan"))
        in_triton(exercise.solution)[(programs,)](*again)
        torch.testing.assert_close(again[place].cpu(), out)


def test_a_reduction_is_the_same_in_triton(device):
    x = torch.tensor([1.0, 5.0, 5.0, -2.0])
    found = []
    for where in ("cpu", device):
        out, index = torch.zeros(4, device=where), torch.zeros(1, dtype=torch.int32, device=where)
        found.append((out, index))
    count_bytes(argmax_and_maximum, 1, x, *found[0], N=4)
    in_triton(argmax_and_maximum)[(1,)](x.to(device), *found[1], N=4)
    for counted, other in zip(*found, strict=True):
        torch.testing.assert_close(counted, other.cpu())
