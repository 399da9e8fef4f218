"""The CPU's attention against the reference in float64: blocks, windows, padding, no sink."""

import pytest
import torch

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.attention import cpu, reference
from oss_kernels.cpu import machine


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


@pytest.mark.parametrize("block", [2**18, 2**9])
@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_in_one_row(rng, monkeypatch, block, window, dtype):
    """With AMX too: bfloat16 with starts is not computed in tiles."""
    monkeypatch.setattr(cpu, "SCORES", block)
    starts = torch.tensor([0] * 7 + [7] * 70 + [77] * 52 + [130])  # the last query sees no key
    given = make_inputs(rng, 3, 8, 2, 130, 130, 32, dtype)
    error = 1e-5 if dtype == torch.float32 else 1e-2
    assert_same(given, error, window=window, starts=starts[None])
    starts = torch.stack((starts, torch.zeros_like(starts), starts.clamp(max=20)))
    assert_same(given, error, window=window, starts=starts)


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


needs_amx = pytest.mark.skipif(not machine.has_amx(), reason="this CPU has no AMX")


def check_tiles(q, k, v, sinks, window=None, padding=None, later=0):
    """Shares are rounded to bfloat16 before they multiply values, and so is the result."""
    given = q, k, v, sinks
    columns = None if padding is None else padding[:, None]
    z, lse = cpu.attend_in_tiles(*given, window, columns, later)
    options = {"window": window, "padding": padding, "later": later}
    wanted = reference.attention(*(x.double() for x in given), **options)
    assert z.dtype == torch.bfloat16
    torch.testing.assert_close(z.double(), wanted[0], atol=4e-3, rtol=2**-8)
    torch.testing.assert_close(lse.double(), wanted[1], atol=2e-6, rtol=1e-6)
    return z, lse


@needs_amx
@pytest.mark.parametrize("window", [None, 1, 31, 32, 33, 127, 128, 129, 1000])
@pytest.mark.parametrize("seq", [1, 31, 33, 130])
def test_tiles_and_windows(rng, window, seq):
    for keys in (seq, seq + 127, 300):
        q, k, v, sinks = make_inputs(rng, 1, 4, 2, seq, keys, 64, torch.bfloat16)
        check_tiles(q, k, v, sinks, window=window)


@needs_amx
@pytest.mark.parametrize(
    ("batch", "seq", "keys", "head_dim", "options"),
    [
        (1, 513, 513, 64, {}),
        (1, 40, 4_130, 64, {}),
        (1, 33, 50, 32, {"later": 9}),
        (1, 33, 50, 128, {"later": 40, "window": 20}),  # some queries see no key
        (3, 50, 50, 64, {"padding": torch.tensor([0, 50, 33])}),
        (2, 20, 64, 64, {"padding": torch.tensor([7, 60]), "window": 16}),
    ],
)
def test_tiles_of_other_sizes(rng, batch, seq, keys, head_dim, options):
    q, k, v, sinks = make_inputs(rng, batch, 4, 2, seq, keys, head_dim, torch.bfloat16)
    check_tiles(q, k, v, sinks, **options)


@needs_amx
def test_tiles_read_views_and_nothing_else(rng):
    q, k, v, sinks = make_inputs(rng, 1, 4, 2, 40, 40, 64, torch.bfloat16)
    wide = torch.full((3, 1, 2, 90, 80), torch.nan).bfloat16()
    wide[0, :, :, 30:70, 5:69], wide[1, :, :, 30:70, 5:69] = k, v
    k, v = (each[:, :, 30:70, 5:69] for each in wide[:2])
    sinks[1] = -torch.inf
    check_tiles(q.transpose(1, 2).contiguous().transpose(1, 2), k, v, sinks)
    check_tiles(100 * q, k, v, 50 * sinks)


@needs_amx
def test_bits_of_tiles_do_not_depend_on_threads_and_a_row_of_keys_is_shared(rng, set_threads):
    q, k, v, sinks = make_inputs(rng, 3, 4, 2, 40, 60, 64, torch.bfloat16)
    got = []
    for threads in (1, 2):
        set_threads(threads)
        got.append(cpu.attention(q, k[:1], v[:1], sinks, window=30))
    assert all(torch.equal(*pair) for pair in zip(*got, strict=True))
    each = [cpu.attention(q[i : i + 1], k[:1], v[:1], sinks, window=30) for i in range(3)]
    assert torch.equal(got[0][0], torch.cat([z for z, _ in each]))
