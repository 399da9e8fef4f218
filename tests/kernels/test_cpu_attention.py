"""The CPU's attention against the reference in float64: blocks, windows, padding, no sink."""

import pytest
import torch
from oss_kernels.attention import cpu, reference


def make_inputs(rng, batch, heads, kv_heads, seq, keys, head_dim, dtype=torch.float32):
    held = (batch, kv_heads, keys, head_dim)
    shapes = ((batch, heads, seq, head_dim), held, held, (heads,))
    return [torch.randn(*shape, generator=rng).to(dtype) for shape in shapes]


def assert_same(given, atol, **options):
    z, lse = cpu.attention(*given, **options)
    wanted = reference.attention(*(x.double() for x in given), **options)
    assert z.dtype == given[0].dtype
    torch.testing.assert_close(z.double(), wanted[0], atol=atol, rtol=0)
    torch.testing.assert_close(lse.double(), wanted[1], atol=atol, rtol=0)


@pytest.mark.parametrize("block", [2**18, 2**9, 1])
@pytest.mark.parametrize("window", [None, 1, 31, 32, 33, 127, 128, 129, 1000])
@pytest.mark.parametrize("seq", [1, 5, 130])
def test_blocks_and_windows(rng, monkeypatch, block, window, seq):
    monkeypatch.setattr(cpu, "SCORES", block)
    for keys in (seq, seq + 127, 300):
        assert_same(make_inputs(rng, 1, 4, 2, seq, keys, 16), 1e-5, window=window)


@pytest.mark.parametrize("block", [2**18, 2**9])
@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.parametrize("seq", [1, 40])
def test_padding(rng, monkeypatch, block, window, seq):
    monkeypatch.setattr(cpu, "SCORES", block)
    padding = torch.tensor([0, 7, 40])
    assert_same(make_inputs(rng, 3, 8, 2, seq, 40, 16), 1e-5, window=window, padding=padding)


def test_no_sink_and_no_visible_key(rng):
    q, k, v, sinks = make_inputs(rng, 2, 4, 1, 3, 5, 16)
    sinks[1] = -torch.inf
    padding = torch.tensor([5, 0])
    assert_same((q, k, v, sinks), 1e-5, padding=padding)
    z, lse = cpu.attention(q, k, v, sinks, padding=padding)
    assert not z[0].any()
    assert torch.equal(lse[0], sinks[:, None].expand(-1, 3))


@pytest.mark.parametrize(("batch", "seq", "keys"), [(0, 3, 5), (1, 0, 5), (1, 0, 0)])
def test_empty_inputs(rng, batch, seq, keys):
    z, lse = cpu.attention(*make_inputs(rng, batch, 4, 1, seq, keys, 16))
    assert (z.shape, lse.shape) == ((batch, 4, seq, 16), (batch, 4, seq))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.bfloat16, 1e-2)])
def test_other_types(rng, dtype, atol):
    assert_same(make_inputs(rng, 1, 8, 1, 70, 90, 64, dtype), atol, window=20)


def test_views_and_large_logits(rng):
    q, k, v, sinks = make_inputs(rng, 2, 4, 2, 9, 20, 32)
    assert_same((q.transpose(0, 1)[:2].transpose(0, 1)[:, :2], k, v, sinks[:2]), 1e-5)
    assert_same((100 * q, 10 * k, v, 50 * sinks), 2e-3)
