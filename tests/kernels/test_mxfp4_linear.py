"""The MXFP4 linear layer against float64: few tokens, many tokens, and the reference."""

import pytest
import torch
from oss_kernels.mxfp4_linear import reference

from oss_lab.model.experts import PackedExperts

kernel = pytest.importorskip("oss_kernels.mxfp4_linear.kernel", reason="triton is not installed")
MAGNITUDES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)
UNIT = 2**-24  # float32's rounding error

FEW = [(1, 20, 1), (1, 9, 90), (2, 17, 5), (3, 33, 34), (8, 7, 3)]
MANY = [(9, 20, 1), (17, 70, 3), (40, 65, 2), (130, 129, 1)]


def dequantize_in_float64(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The definition: [rows columns] in float64."""
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2).long()
    numbers = MAGNITUDES[codes % 8] * (1 - 2 * (codes // 8))
    powers = 2.0 ** (scales.double() - 127)
    return (numbers * powers.masked_fill(scales == 255, torch.nan)[..., None]).flatten(-2)


def compute_in_float64(x, blocks, scales, bias) -> tuple[torch.Tensor, torch.Tensor]:
    """The result and, for tolerances, the sum of the magnitudes of its terms; both in float64."""
    weight, bias = dequantize_in_float64(blocks, scales), torch.zeros(1) if bias is None else bias
    size = x.double().abs() @ weight.abs().mT + bias.double().abs()
    return x.double() @ weight.mT + bias.double(), size


def make_inputs(rng, tokens, rows, groups, dtype=torch.float32, magnitude=1.0, low=117, high=127):
    x = (torch.randn(tokens, 32 * groups, generator=rng) * magnitude).to(dtype)
    blocks = torch.randint(0, 256, (rows, groups, 16), generator=rng, dtype=torch.uint8)
    scales = torch.randint(low, high, (rows, groups), generator=rng, dtype=torch.uint8)
    return x, blocks, scales, torch.randn(rows, generator=rng).to(dtype)


def count_roundings(tokens: int, columns: int) -> int:
    """The most roundings that one term goes through. Few tokens: additions of 8 codes, 4 words,
    steps, 32 lanes, one product, one bias. Many tokens: all columns, added in any order."""
    return 20 + columns // 1024 if tokens <= 8 else columns + 2


def check(rounding, x, blocks, scales, bias, out) -> None:
    expected, size = compute_in_float64(x, blocks, scales, bias)
    error = (out.double().cpu() - expected).abs()
    allowed = (
        count_roundings(len(x), x.shape[1]) * UNIT * size + rounding[out.dtype] * expected.abs()
    )
    assert (error <= allowed).all(), (error / allowed).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "rows", "groups"), FEW + MANY)
def test_the_kernel_computes_the_definition(rng, device, rounding, dtype, tokens, rows, groups):
    x, blocks, scales, bias = make_inputs(rng, tokens, rows, groups, dtype)
    out = kernel.mxfp4_linear(*(tensor.to(device) for tensor in (x, blocks, scales, bias)))
    assert (out.dtype, out.shape) == (dtype, (tokens, rows))
    check(rounding, x, blocks, scales, bias, out)


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("low", [20, 60, 100, 180])
@pytest.mark.parametrize("magnitude", [1e-6, 1e-2, 1e17])
def test_small_and_large_activations_and_scales_keep_their_digits(
    rng, device, rounding, tokens, low, magnitude
):
    x, blocks, scales, _ = make_inputs(
        rng, tokens, 5, 2, magnitude=magnitude, low=low, high=low + 4
    )
    out = kernel.mxfp4_linear(x.to(device), blocks.to(device), scales.to(device), None)
    check(rounding, x, blocks, scales, None, out)


def test_these_inputs_detect_subnormal_products(rng, rounding):
    """If the codes' 2^126 were applied to the sum only, the products would lose digits."""
    x, blocks, scales, _ = make_inputs(rng, 1, 5, 2, magnitude=1e-6, low=100, high=104)
    raw = (
        (dequantize_in_float64(blocks, torch.full_like(scales, 127)) * 2.0**-126)
        .float()
        .unflatten(-1, (-1, 32))
    )
    sums = (raw * x.unflatten(-1, (-1, 32))).sum(-1)
    out = (sums * 2.0 ** (scales.float() - 127)).sum(-1) * 2.0**126
    with pytest.raises(AssertionError):
        check(rounding, x, blocks, scales, None, out[None])


@pytest.mark.parametrize("tokens", [1, 9])
def test_a_nan_scale_makes_its_row_nan_and_no_other(rng, device, tokens):
    x, blocks, scales, bias = make_inputs(rng, tokens, 20, 3)
    scales[4, 1] = 255
    out = kernel.mxfp4_linear(*(tensor.to(device) for tensor in (x, blocks, scales, bias)))
    assert out[:, 4].isnan().all()
    assert out.isnan().sum() == tokens


@pytest.mark.parametrize(("tokens", "rows"), [(3, 21), (8, 8), (11, 21)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_every_output_is_written_and_nothing_after_it(rng, device, tokens, rows, with_bias):
    x, blocks, scales, bias = (tensor.to(device) for tensor in make_inputs(rng, tokens, rows, 2))
    out = torch.full((tokens + 1, rows), float("nan"), device=device)
    for launch in kernel.make_launches(
        x, blocks, scales, bias if with_bias else None, out[:tokens]
    ):
        launch()
    assert out[:tokens].isfinite().all()
    assert out[tokens].isnan().all()


@pytest.mark.parametrize(("tokens", "rows"), [(0, 5), (3, 0), (0, 0), (20, 0)])
def test_empty_inputs(rng, device, tokens, rows):
    inputs = (tensor.to(device) for tensor in make_inputs(rng, tokens, rows, 2))
    assert kernel.mxfp4_linear(*inputs).shape == (tokens, rows)


@pytest.mark.parametrize("tokens", [4, 12])
def test_a_token_does_not_depend_on_the_others_and_runs_do_not_differ(rng, device, tokens):
    x, *weights = (tensor.to(device) for tensor in make_inputs(rng, tokens, 9, 3))
    out = kernel.mxfp4_linear(x, *weights)
    assert torch.equal(out, kernel.mxfp4_linear(x, *weights))
    other = x.flip(0)
    other[1] = x[1]
    assert torch.equal(out[1], kernel.mxfp4_linear(other, *weights)[1])


def test_inputs_need_not_be_contiguous(rng, device, rounding):
    x, blocks, scales, bias = make_inputs(rng, 4, 10, 4)
    ours = (x[::2, 32:96], blocks[::2, 1:3], scales[::2, 1:3], bias[::2])
    out = kernel.mxfp4_linear(*(tensor.to(device) for tensor in ours))
    check(rounding, *ours, out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_reference_equals_the_definition_and_the_models_matrix(rng, dtype):
    x, blocks, scales, bias = make_inputs(rng, 5, 13, 3, dtype)
    out = reference.mxfp4_linear(x, blocks, scales, bias)
    expected, size = compute_in_float64(x, blocks, scales, bias)
    unit = {torch.float64: 2**-53}.get(dtype, UNIT)
    store = 2**-8 if dtype == torch.bfloat16 else 0
    assert out.dtype == dtype
    assert ((out.double() - expected).abs() <= 98 * unit * size + store * expected.abs()).all()
    packed = PackedExperts(1, 13, 96)
    packed.blocks[0], packed.scales[0] = blocks, scales
    assert torch.equal(
        next(iter(packed.matrices([0], torch.float64))), dequantize_in_float64(blocks, scales)
    )
    assert torch.equal(out, reference.mxfp4_linear(x, packed.blocks[0], packed.scales[0], bias))
