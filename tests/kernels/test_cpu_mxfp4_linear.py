"""The CPU's MXFP4 products against float64, on every path that this machine supports.

numba compiles a kernel for each path, each dtype of activations, and with or without a bias, which
takes seconds. So each path is tested here with one dtype and with the other in the slow tests. All
tests but one use a bias.
"""

import pytest
import torch
from oss_kernels.mxfp4.reference import dequantize as exact_numbers
from oss_kernels.mxfp4_linear import reference

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.cpu import machine
from oss_kernels.cpu.dequantize import dequantize_by_group, dequantize_by_number
from oss_kernels.cpu.numbers import as_numpy
from oss_kernels.mxfp4_linear import cpu

ROUNDING = {
    torch.float32: 2**-24,
    torch.bfloat16: 2**-8,
}  # of one store: half a unit in the last place
QUICK = {
    "avx512_bf16": torch.bfloat16,
    "avx512": torch.float32,
    "avx2": torch.float32,
    "plain": torch.bfloat16,
}
PAIRS = [
    pytest.param(path, dtype, marks=[pytest.mark.slow] * (dtype != QUICK[path]))
    for path in machine.list_paths()
    for dtype in ROUNDING
    if machine.accepts(path, dtype)
]


def check(got, x, blocks, scales, bias, dtype, sums=1e-6):
    """Within one store's rounding plus `sums` of the sum of the magnitudes that were added."""
    numbers = exact_numbers(blocks, scales, torch.float64)
    want, size = x.double() @ numbers.T, x.double().abs() @ numbers.abs().T
    want, size = want + bias.double(), size + bias.double().abs()
    assert got.dtype == dtype
    error = (got.double() - want).abs()
    assert (error <= ROUNDING[dtype] * want.abs() + sums * size).all(), (error / size).max()


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 7, 9, 90])
@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_rows_follow_the_definition(rng, random_mxfp4, path, dtype, groups):
    groups = max(groups, cpu.LAYOUTS[path].groups)  # a row has at least one chunk
    blocks, scales = random_mxfp4(13, groups=groups)
    bias = torch.randn(13, generator=rng).to(dtype)
    for tokens in (1, 2, 9):
        x = torch.randn(tokens, 32 * groups, generator=rng).to(dtype)
        got = cpu.multiply_by_rows(x, blocks, scales, bias, path)
        check(got, x, blocks, scales, bias, dtype)


def test_no_bias_equals_a_bias_of_zero(rng, random_mxfp4):
    blocks, scales = random_mxfp4(13, groups=5)
    x = torch.randn(2, 160, generator=rng).bfloat16()
    path = machine.list_paths()[0]
    with_zero = cpu.multiply_by_rows(x, blocks, scales, torch.zeros(13).bfloat16(), path)
    assert torch.equal(cpu.multiply_by_rows(x, blocks, scales, None, path), with_zero)


@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_every_code_at_every_place_and_every_scale(rng, random_mxfp4, path, dtype):
    groups = 5
    size = 32 * groups
    x = torch.eye(size).to(dtype)  # each element alone: the result is exact
    blocks, _ = random_mxfp4(16, groups=groups)
    scales = torch.tensor([0, 1, 2, 126, 127, 128, 251, 252]).to(torch.uint8)[
        torch.randint(0, 8, (16, groups), generator=rng)
    ]
    got = cpu.multiply_by_rows(x, blocks, scales, torch.zeros(16, dtype=dtype), path)
    want = exact_numbers(blocks, scales, torch.float64).T
    assert torch.equal(got.double(), want)


@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_the_largest_scale_and_the_nan_scale(rng, random_mxfp4, path, dtype):
    blocks, scales = random_mxfp4(4, groups=6)
    scales[1], scales[2, 3], scales[3, 5] = 254, 255, 255
    x, bias = (torch.randn(2, 192, generator=rng) * 1e-4).to(dtype), torch.zeros(4, dtype=dtype)
    got = cpu.multiply_by_rows(x, blocks, scales, bias, path)
    assert got[:, 2:].isnan().all()
    check(got[:, :2], x, blocks[:2], scales[:2], bias[:2], dtype)
    # Zeros do not hide it.
    assert (
        cpu.multiply_by_rows(torch.zeros_like(x), blocks, scales, bias, path)[:, 2:].isnan().all()
    )


@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("groups", [16, 17, 90])
@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_a_special_scale_is_found_anywhere(rng, random_mxfp4, path, dtype, groups, place):
    """Rows of 16 groups or more are scanned, 16 scales at a time, and may take a faster path."""
    blocks, scales = random_mxfp4(3, groups=groups, low=1, high=9)
    scales[0, place], scales[1, place] = 255, 0
    blocks[1, place] = 0x77  # 6, times 2^-127
    x = torch.zeros(1, 32 * groups, dtype=dtype)
    x.view(groups, 32)[place] = 2.0**100
    got = cpu.multiply_by_rows(x, blocks, scales, torch.zeros(3, dtype=dtype), path)
    assert got[0, 0].isnan()
    assert got[0, 1] == 6 * 32 * 2.0**-27
    assert got[0, 2].isfinite()


@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_any_size_of_activations(rng, random_mxfp4, path, dtype):
    blocks, scales = random_mxfp4(8, groups=5)
    bias = torch.zeros(8, dtype=dtype)
    for size in (1e-30, 1e-6, 1e6, 1e30):
        x = (torch.randn(1, 160, generator=rng) * size).to(dtype)
        check(cpu.multiply_by_rows(x, blocks, scales, bias, path), x, blocks, scales, bias, dtype)


@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_the_readmes_bounds_on_activations_and_weights(path, dtype):
    """The end of `mxfp4_linear/README.md`: activations must be below 2^122, and AVX-512 BF16 treats
    subnormals, below 2^-126, as zero."""
    blocks = torch.full((1, 8, 16), 0x77, dtype=torch.uint8)  # 6, everywhere
    ones = torch.full((1, 8), 1, dtype=torch.uint8)
    x, bias = torch.full((1, 256), 255 * 2.0**114).to(dtype), torch.zeros(1, dtype=dtype)
    check(cpu.multiply_by_rows(x, blocks, ones, bias, path), x, blocks, ones, bias, dtype)
    assert cpu.multiply_by_rows(4 * x, blocks, ones, bias, path).isinf().all()

    largest = torch.full((1, 8), 253, dtype=torch.uint8)
    small = torch.full_like(x, 2.0**-20)
    assert cpu.multiply_by_rows(small, blocks, largest, bias, path).isfinite().all()
    assert reference.mxfp4_linear(small, blocks, largest, bias).isinf().all()

    subnormal = torch.full_like(x, 2.0**-130)
    got = cpu.multiply_by_rows(subnormal, blocks, largest - 2, bias, path)
    assert got[0, 0] == (0 if path == "avx512_bf16" else 256 * 6 * 2.0**-6)


@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_every_element_of_a_poisoned_output_is_written(rng, random_mxfp4, path, dtype):
    blocks, scales = random_mxfp4(7, groups=5)
    x = torch.randn(3, 160, generator=rng).to(dtype)
    out, bias = torch.full((4, 7), float("nan"), dtype=dtype), torch.zeros(7, dtype=dtype)
    layout = cpu.LAYOUTS[path]
    arranged = cpu.empty_arranged(3, 160, layout.elements, layout.bits)
    arranged.fill(0x7FC0 if layout.bits == 16 else float("nan"))
    x, blocks, scales, bias, written = map(as_numpy, (x, blocks, scales, bias, out[:3]))
    cpu.rows_kernel(path)(x, blocks, scales, bias, arranged, written)
    assert out[:3].isfinite().all()
    assert out[3].isnan().all()


@pytest.mark.parametrize(("path", "dtype"), PAIRS)
def test_bits_depend_on_neither_threads_nor_other_tokens(
    rng, random_mxfp4, set_threads, path, dtype
):
    blocks, scales = random_mxfp4(37, groups=6)
    x, bias = torch.randn(5, 192, generator=rng).to(dtype), torch.zeros(37, dtype=dtype)
    got = []
    for threads in (1, 2):
        set_threads(threads)
        got.append(cpu.multiply_by_rows(x, blocks, scales, bias, path))
        assert torch.get_num_threads() == threads
    assert torch.equal(got[0], got[1])
    alone = torch.cat(
        [cpu.multiply_by_rows(token[None], blocks, scales, bias, path) for token in x]
    )
    assert torch.equal(got[0], alone)


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize(
    ("tokens", "rows", "groups"), [(1, 5, 1), (0, 5, 4), (32, 33, 5), (33, 33, 5), (40, 700, 5)]
)
def test_the_public_function_equals_the_reference(rng, random_mxfp4, dtype, tokens, rows, groups):
    blocks, scales = random_mxfp4(rows, groups=groups)
    x = torch.randn(tokens, 32 * groups, generator=rng).to(dtype)
    bias = torch.randn(rows, generator=rng).to(dtype)
    got = cpu.mxfp4_linear(x, blocks, scales, bias)
    assert got.shape == reference.mxfp4_linear(x, blocks, scales, bias).shape
    check(got, x, blocks, scales, bias, dtype, sums=2e-6)


WAYS = [(dequantize_by_number, dtype) for dtype in ROUNDING]
if "avx512" in machine.list_paths():
    WAYS.append((dequantize_by_group, torch.bfloat16))


@pytest.mark.parametrize(("way", "dtype"), WAYS)
def test_dequantized_numbers_are_the_references_bit_for_bit(way, dtype):
    # Row u has every byte, under the scale u.
    blocks = torch.arange(256, dtype=torch.uint8).view(16, 16).repeat(256, 1, 1)
    scales = torch.arange(256, dtype=torch.uint8)[:, None].repeat(1, 16)
    out = torch.full((257, 512), 7.0, dtype=dtype)
    way()(as_numpy(blocks), as_numpy(scales), as_numpy(out[:256]))
    want = exact_numbers(blocks, scales, dtype)
    whole = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[dtype]
    numbers = ~want.isnan()
    assert torch.equal(out[:256].isnan(), want.isnan())
    assert torch.equal(out[:256][numbers].view(whole), want[numbers].view(whole))
    assert (out[256] == 7).all()


def test_a_wrong_order_of_activations_would_be_detected(rng, random_mxfp4):
    blocks, scales = random_mxfp4(13, groups=6)
    x, bias = torch.randn(1, 192, generator=rng).bfloat16(), torch.zeros(13).bfloat16()
    swapped = x.view(-1, 2).flip(-1).reshape(1, -1)
    got = cpu.multiply_by_rows(swapped, blocks, scales, bias, "plain")
    with pytest.raises(AssertionError):
        check(got, x, blocks, scales, bias, torch.bfloat16)
