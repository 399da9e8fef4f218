"""The gradient of an MXFP4 linear layer's input against float64."""

from importlib import import_module

import pytest
import torch
from oss_kernels.mxfp4.reference import dequantize

ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-7}  # of the result; interpreters truncate
SIZES = [(1, 5, 1), (31, 64, 3), (33, 70, 2), (129, 200, 4), (300, 130, 1)]
NAMES = ["reference", "cpu", "kernel"]


def compute(name, dy, blocks, scales, device):
    if name == "kernel":
        pytest.importorskip("triton", reason="triton is not installed")
    if name == "cpu":
        pytest.importorskip("numba", reason="numba is not installed")
    module = import_module(f"oss_kernels.mxfp4_linear_backward.{name}")
    place = device if name == "kernel" else "cpu"
    return module.mxfp4_linear_backward(*(x.to(place) for x in (dy, blocks, scales))).cpu()


def check(found, dy, blocks, scales):
    """A sum of n products is off by at most n roundings of the sum of their magnitudes."""
    weight = dequantize(blocks, scales, torch.float64)
    wanted, size = dy.double() @ weight, dy.double().abs() @ weight.abs()
    assert (found.dtype, found.shape) == (dy.dtype, wanted.shape)
    bound = (len(scales) + 2) * 2**-24 * size + ROUNDING[dy.dtype] * wanted.abs()
    assert ((found.double() - wanted).abs() <= bound).all()


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize(("tokens", "rows", "groups"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_product_with_the_weight(
    rng, random_mxfp4, device, name, tokens, rows, groups, dtype
):
    blocks, scales = random_mxfp4(rows, groups=groups)
    dy = torch.randn(tokens, rows, generator=rng).to(dtype)
    check(compute(name, dy, blocks, scales, device), dy, blocks, scales)


def test_tiles_of_columns_on_a_cpu(rng, random_mxfp4, monkeypatch):
    cpu = pytest.importorskip("oss_kernels.mxfp4_linear_backward.cpu")
    monkeypatch.setattr(cpu, "NUMBERS", 2 * 32 * 70)  # two groups at a time
    blocks, scales = random_mxfp4(70, groups=5)
    dy = torch.randn(9, 70, generator=rng)
    check(cpu.mxfp4_linear_backward(dy, blocks, scales), dy, blocks, scales)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("tokens", "rows"), [(0, 5), (3, 0)])
def test_empty_inputs(device, random_mxfp4, name, tokens, rows):
    blocks, scales = random_mxfp4(rows, groups=2)
    found = compute(name, torch.ones(tokens, rows), blocks, scales, device)
    assert torch.equal(found, torch.zeros(tokens, 64))


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_scale_makes_its_columns_nan_and_no_other(rng, random_mxfp4, device, name):
    blocks, scales = random_mxfp4(20, groups=3)
    scales[4, 1] = 255
    found = compute(name, torch.randn(9, 20, generator=rng), blocks, scales, device)
    assert found[:, 32:64].isnan().all()
    assert found.isnan().sum() == 9 * 32


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("magnitude", "low"), [(1e-6, 20), (1e-6, 180), (1e17, 20), (1e17, 60)])
def test_small_and_large_gradients_and_scales_keep_their_digits(
    rng, random_mxfp4, device, name, magnitude, low
):
    blocks, scales = random_mxfp4(5, groups=2, low=low, high=low + 4)
    dy = torch.randn(9, 5, generator=rng) * magnitude
    check(compute(name, dy, blocks, scales, device), dy, blocks, scales)


def test_every_element_of_a_poisoned_output_is_written(rng, random_mxfp4, device):
    kernel = pytest.importorskip("oss_kernels.mxfp4_linear_backward.kernel")
    blocks, scales = (each.to(device) for each in random_mxfp4(70, groups=3))
    dy = torch.randn(17, 70, generator=rng).to(device)
    dx = torch.full((18, 96), torch.nan, device=device)
    kernel.launch(dy, blocks, scales, dx[:17])()
    assert dx[:17].isfinite().all()
    assert dx[17].isnan().all()


def test_the_forwards_product_would_be_detected(rng, random_mxfp4):
    blocks, scales = random_mxfp4(96, groups=3)
    dy = torch.randn(4, 96, generator=rng)
    with pytest.raises(AssertionError):
        check(dy @ dequantize(blocks, scales).mT, dy, blocks, scales)
