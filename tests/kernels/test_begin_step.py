"""The start of a decode step: the kernel gives the reference's numbers and moves the cursor."""

from dataclasses import fields

import pytest
import torch
from oss_kernels.begin_step import reference
from oss_kernels.begin_step.reference import Cursor

kernel = pytest.importorskip("oss_kernels.begin_step.kernel", reason="triton is not installed")
VOCAB, HIDDEN, HEAD_DIM, CAPACITY, WINDOW = 50, 96, 16, 130, 128


def make_cursor(tokens, positions, device) -> Cursor:
    ids, at = (torch.tensor(x, dtype=torch.int32, device=device) for x in (tokens, positions))
    lengths, full_slots, ring_slots = (torch.full_like(ids, -7) for _ in range(3))
    text = torch.full((len(tokens), CAPACITY), -7, dtype=torch.int32, device=device)
    return Cursor(ids, at, lengths, full_slots, ring_slots, text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_equals_the_reference_bit_for_bit(rng, device, dtype):
    embedding, cos, sin = (
        torch.randn(shape, generator=rng).to(device, dtype)
        for shape in ((VOCAB, HIDDEN), (CAPACITY, HEAD_DIM), (CAPACITY, HEAD_DIM))
    )
    tokens, positions = [3, 49, 0, 7], [0, 127, 128, 129]
    ours, theirs = (make_cursor(tokens, positions, device) for _ in range(2))
    x = torch.full((4, HIDDEN), float("nan"), dtype=dtype, device=device)
    angles = [torch.full_like(x[:, :HEAD_DIM], float("nan")).contiguous() for _ in range(2)]
    kernel.launch(ours, embedding, cos, sin, WINDOW, x, *angles)()
    wanted = reference.begin_step(theirs, embedding, cos, sin, WINDOW)
    assert all(torch.equal(a, b) for a, b in zip((x, *angles), wanted, strict=True))
    for field in fields(Cursor):
        assert torch.equal(getattr(ours, field.name), getattr(theirs, field.name)), field.name
    assert ours.ring_slots.tolist() == [0, 127, 0, 1]
    assert ours.lengths.tolist() == ours.positions.tolist() == [1, 128, 129, 130]


def test_a_position_after_the_end_of_the_cache_writes_nothing_to_the_text(device):
    cursor = make_cursor([3, 4], [CAPACITY, 5], device)
    tables = [torch.zeros(CAPACITY, HEAD_DIM, device=device) for _ in range(2)]
    x, angles = torch.empty(2, 32, device=device), torch.empty(2, 2, HEAD_DIM, device=device)
    embedding = torch.zeros(VOCAB, 32, device=device)
    kernel.launch(cursor, embedding, *tables, WINDOW, x, *angles.unbind())()
    assert (cursor.text != -7).nonzero().tolist() == [[1, 5]]


def test_an_id_outside_the_vocabulary_reads_nothing_and_gives_nan(device):
    cursor = make_cursor([-1, VOCAB, VOCAB - 1, 2**31 - 1], [0, 1, 2, 3], device)
    tables = [torch.zeros(CAPACITY, HEAD_DIM, device=device) for _ in range(2)]
    x, angles = torch.zeros(4, 32, device=device), torch.zeros(2, 4, HEAD_DIM, device=device)
    embedding = torch.ones(VOCAB, 32, device=device)
    kernel.launch(cursor, embedding, *tables, WINDOW, x, *angles.unbind())()
    assert x.isnan().all(-1).tolist() == [True, True, False, True]
    assert x[2].tolist() == [1.0] * 32
