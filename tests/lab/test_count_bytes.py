"""The counter of bytes: what kernels load and store, and the mistakes that it refuses."""

from typing import Any, cast

import pytest
import torch

from oss_lab.course import tile_language as tl
from oss_lab.course.count_bytes import count_bytes
from oss_lab.errors import LabError


def add(x, y, out, n, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(x + place, mask=place < n) + tl.load(y + place, mask=place < n)
    tl.store(out + place, total, mask=place < n)


def copy_without_mask(x, out, BLOCK: tl.constexpr):
    place = tl.arange(0, BLOCK)
    tl.store(out + place, tl.load(place + x))


def test_a_masked_lane_moves_no_bytes_and_is_idle():
    x, y, out = torch.arange(20.0), torch.ones(20).bfloat16(), torch.zeros(20)
    run = count_bytes(add, 3, x, y, out, 20, BLOCK=8)
    assert torch.equal(out, x + 1)
    assert (run.loaded, run.stored) == ({"x": 80, "y": 40}, {"out": 80})
    assert (run.lanes, run.idle) == (3 * 24, 3 * 4)


def test_bytes_that_are_loaded_twice_count_twice():
    def scale_all(x, scale, out):
        place = tl.arange(0, 4)
        tl.store(out + place, tl.load(x + place) * tl.load(scale + 0 * place))

    run = count_bytes(scale_all, (1,), torch.ones(4), torch.ones(1), torch.zeros(4))
    assert run.loaded == {"x": 16, "scale": 16}


def test_every_program_of_a_grid_runs_once():
    def mark(out):
        place = tl.program_id(0) * 3 + tl.program_id(1)
        tl.store(out + place, tl.load(out + place) + 1)

    out = torch.zeros(2, 3)
    count_bytes(mark, (2, 3), out)
    assert torch.equal(out, torch.ones(2, 3))


def test_a_place_outside_of_a_tensor_is_named():
    with pytest.raises(LabError, match="program 0 uses place 5 of x, which has 5 numbers; give"):
        count_bytes(copy_without_mask, 1, torch.zeros(5), torch.zeros(8), BLOCK=8)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda x: tl.arange(0, 3), "power of two, got 3"),
        (lambda x: tl.load(cast(Any, 5)), "expected an address, such as x \\+ places, got int"),
    ],
)
def test_other_mistakes_have_a_sentence(kernel, message):
    with pytest.raises(LabError, match=message):
        count_bytes(kernel, 1, torch.zeros(4))


def test_a_tensor_must_be_contiguous():
    with pytest.raises(LabError, match="x is not contiguous"):
        count_bytes(copy_without_mask, 1, torch.zeros(4, 4).T, torch.zeros(4), BLOCK=4)
