"""Parts of the AMX path: decoded panels bit for bit, products of tiles, the exponential."""

import numpy as np
import pytest
import torch
from oss_kernels.mxfp4.reference import dequantize

pytest.importorskip("numba", reason="numba is not installed")

from numba import njit, types
from oss_kernels.cpu import amx, machine, vectors
from oss_kernels.cpu.e2m1_panels import ROWS, are_all_ordinary, decode_any, decode_ordinary
from oss_kernels.cpu.exponential import exponential, exponentials
from oss_kernels.cpu.numbers import as_numpy

needs_avx512 = pytest.mark.skipif("avx512" not in machine.list_paths(), reason="needs AVX-512")


@njit
def decode(blocks, scales, first, count, is_ordinary, out):
    blocks_at, scales_at, groups = blocks.ctypes.data, scales.ctypes.data, scales.shape[1]
    if is_ordinary:
        decode_ordinary(blocks_at, scales_at, groups, first, count, out.ctypes.data)
    else:
        decode_any(blocks_at, scales_at, groups, first, count, out.ctypes.data)


@njit
def are_ordinary(scales):
    return are_all_ordinary(scales.ctypes.data, scales.size)


@needs_avx512
@pytest.mark.parametrize("is_ordinary", [True, False])
def test_panels_are_the_references_bit_for_bit(is_ordinary):
    # Each row has every byte; scales are all bytes or, in ordinary panels, 3 to 252.
    blocks = torch.arange(256, dtype=torch.uint8).view(16, 16).repeat(ROWS, 1, 1)
    scales = torch.arange(ROWS * 16).view(ROWS, 16) % 256
    scales = (scales % 250 + 3 if is_ordinary else scales).to(torch.uint8)
    want = dequantize(blocks, scales, torch.bfloat16).view(ROWS, 16, 32).transpose(0, 1)
    out = torch.full((8, ROWS, 32), 7.0, dtype=torch.bfloat16)
    decode(as_numpy(blocks), as_numpy(scales), 5, 7, is_ordinary, as_numpy(out))
    want, numbers = want[5:12], ~want[5:12].isnan()
    assert torch.equal(out[:7].isnan(), ~numbers)
    assert torch.equal(out[:7][numbers].view(torch.int16), want[numbers].view(torch.int16))
    assert (out[7] == 7).all()


@pytest.mark.parametrize("byte", [0, 1, 2, 253, 254, 255])
def test_panels_that_are_not_ordinary_are_found(byte):
    scales = np.full((ROWS, 3), 3, np.uint8)
    scales[0, 0] = 252
    assert are_ordinary(scales)
    for place in ((0, 0), (7, 1), (31, 2)):
        changed = scales.copy()
        changed[place] = byte
        assert not are_ordinary(changed)


@njit
def multiply(is_first, weights, x_at, stride, sums):
    """A block of two tiles of tokens, and one of the first tile alone."""
    amx.open_tiles()
    weights_at, sums_at, steps = weights.ctypes.data, sums.ctypes.data, len(weights)
    amx.multiply_block(2, is_first, weights_at, 64, 2048, x_at, stride, steps, sums_at)
    sums_at += sums.strides[0]
    amx.multiply_block(1, is_first, weights_at, 64, 2048, x_at, stride, steps, sums_at)
    amx.close_tiles()


@pytest.mark.skipif(not machine.has_amx(), reason="this CPU has no AMX")
def test_products_of_tiles(rng):
    weights = torch.randn(32, 5 * 32, generator=rng).bfloat16()
    x = torch.randn(32, 5 * 32, generator=rng).bfloat16()
    left = weights.view(32, 5, 32).transpose(0, 1).contiguous()
    right = x.view(2, 16, 5, 16, 2).permute(0, 2, 3, 1, 4).contiguous()
    sums = torch.full((2, 32, 32), 7.0)
    for is_first, some in ((True, slice(0, 2)), (False, slice(2, 5))):
        at = right.data_ptr() + some.start * amx.TILE
        multiply(is_first, as_numpy(left[some]), at, 5 * amx.TILE, as_numpy(sums))
    want = (weights.double() @ x.double().T).float()
    torch.testing.assert_close(sums[0], want, atol=1e-4, rtol=0)
    torch.testing.assert_close(sums[1, :, :16], want[:, :16], atol=1e-4, rtol=0)
    assert (sums[1, :, 16:] == 7).all()


@vectors.intrinsic
def exponential_of_16(typing, x, out):
    def generate(context, builder, signature, arguments):
        kind = vectors.vector(vectors.FLOAT, 16)
        value = exponentials(builder, vectors.load_vector(builder, arguments[0], kind))
        vectors.store_vector(builder, value, arguments[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@njit
def exponential_by_vectors(x, out):
    for i in range(0, x.size, 16):
        exponential_of_16(x[i:].ctypes.data, out[i:].ctypes.data)


@njit
def exponential_by_numbers(x, out):
    for i in range(x.size):
        out[i] = exponential(x[i])


@pytest.mark.parametrize("compute", [exponential_by_vectors, exponential_by_numbers])
def test_the_exponential(compute):
    x = torch.cat((torch.linspace(-87.3, 88.3, 160_000), torch.linspace(-1, 1, 160_000)))
    out = torch.empty_like(x)
    compute(as_numpy(x), as_numpy(out))
    want = x.double().exp()
    assert ((out.double() - want).abs() / want).max() < 2e-7
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 89, -88, 1e30, -1e30, 0] * 2)
    compute(as_numpy(x), as_numpy(out[:16]))
    want = torch.tensor([torch.nan, torch.inf, 0, torch.inf, 0, torch.inf, 0, 1])
    torch.testing.assert_close(out[:8], want, equal_nan=True, atol=0, rtol=0)
