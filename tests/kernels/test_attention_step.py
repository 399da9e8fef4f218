"""Attention of a decode step with lengths on the device, against the reference in float64."""

import pytest
import torch
from oss_kernels.attention import reference

step = pytest.importorskip("oss_kernels.attention.step", reason="triton is not installed")
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16


def run(q, keys, values, sinks, lengths, splits):
    z = torch.full_like(q, float("nan"))
    lse = torch.full(q.shape[:2], float("nan"), device=q.device)
    parts = None
    if splits > 1:
        parts = (
            torch.full((splits, *q.shape), float("nan"), device=q.device),
            torch.full((splits, *lse.shape), float("nan"), device=q.device),
        )
    lengths = torch.tensor(lengths, dtype=torch.int32, device=q.device)
    for launch in step.make_step_launches(q, keys, values, sinks, lengths, z, lse, parts):
        launch()
    return z, lse


def make(rng, device, batch, capacity):
    q = torch.randn(batch, HEADS, HEAD_DIM, generator=rng).to(device)
    cache = torch.randn(2, batch, KV_HEADS, capacity, HEAD_DIM, generator=rng).to(device)
    return q, cache[0], cache[1], torch.randn(HEADS, generator=rng).to(device)


@pytest.mark.parametrize(
    ("splits", "capacity", "lengths"),
    [
        (1, 128, [1, 127]),
        (1, 128, [128, 129]),  # a ring that is full
        (3, 500, [1, 128, 129]),
        (2, 700, [257, 700]),
        (4, 4200, [4097]),
    ],
)
def test_each_row_sees_its_own_keys(rng, device, splits, capacity, lengths):
    q, keys, values, sinks = make(rng, device, len(lengths), capacity)
    for row, length in enumerate(lengths):  # what is after them must not be read
        keys[row, :, length:] = values[row, :, length:] = float("nan")
    z, lse = run(q, keys, values, sinks, lengths, splits)
    for row, length in enumerate(lengths):
        k, v = (cache[row : row + 1, :, :length].double() for cache in (keys, values))
        wanted = reference.attention(q[row][None, :, None].double(), k, v, sinks)
        torch.testing.assert_close(z[row], wanted[0][0, :, 0].float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(lse[row], wanted[1][0, :, 0].float(), rtol=1e-5, atol=1e-6)


def test_the_order_of_a_ring_changes_only_the_rounding(rng, device):
    q, keys, values, sinks = make(rng, device, 1, 128)
    straight = run(q, keys, values, sinks, [300], 1)
    turned = run(q, keys.roll(44, 2), values.roll(44, 2), sinks, [300], 1)
    for ours, theirs in zip(turned, straight, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_nan_among_the_keys_of_a_later_split_is_not_hidden(rng, device):
    q, keys, values, sinks = make(rng, device, 1, 300)
    keys[0, 0, 200] = float("nan")
    z, _ = run(q, keys, values, sinks, [250], 3)
    assert z[0, :2].isnan().all()
    assert z[0, 2:].isfinite().all()
