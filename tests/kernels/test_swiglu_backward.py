"""The gradient of the experts' activation against float64, inside and outside the clamps."""

from importlib import import_module

import pytest
import torch
from oss_kernels.experts.reference import clamped_swiglu

CONSTANTS = {"alpha": 1.702, "limit": 7.0}
NAMES = ["reference", "cpu", "kernel"]


def compute(name, gate_up, dact, device):
    if name == "kernel":
        pytest.importorskip("triton", reason="triton is not installed")
    if name == "cpu":
        pytest.importorskip("numba", reason="numba is not installed")
    module = import_module(f"oss_kernels.swiglu_backward.{name}")
    place = device if name == "kernel" else "cpu"
    return module.swiglu_backward(gate_up.to(place), dact.to(place), **CONSTANTS).cpu()


def differentiate(gate_up, dact):
    leaf = gate_up.double().requires_grad_()
    (gradient,) = torch.autograd.grad(clamped_swiglu(leaf, **CONSTANTS), leaf, dact.double())
    return gradient


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7 + 1e-5)]
)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (31, 32), (33, 96), (129, 33), (300, 64)])
def test_the_gradient_is_that_of_the_activation(rng, device, name, dtype, error, rows, width):
    gate_up = (5 * torch.randn(rows, 2 * width, generator=rng)).to(dtype)  # 16% beyond the limit
    dact = torch.randn(rows, width, generator=rng).to(dtype)
    found, wanted = compute(name, gate_up, dact, device), differentiate(gate_up, dact)
    assert (found.dtype, found.shape) == (dtype, gate_up.shape)
    size = dact.double().abs().repeat_interleave(2, dim=1)  # of the terms in a difference
    assert ((found.double() - wanted).abs() <= error * wanted.abs() + 2e-6 * size).all()
    is_outside = torch.where(torch.arange(2 * width) % 2 == 0, gate_up, gate_up.abs()) > 7
    assert rows == 1 or is_outside.any()
    assert not found[is_outside].any()


@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's exponential, on purpose
@pytest.mark.parametrize("name", NAMES)
def test_limits_zeros_and_extremes(device, name):
    values = torch.tensor([7.0, -7.0, 7.0001, -7.0001, 0.0, -0.0, 1e30, -1e30, 90.0, -90.0])
    gate_up = torch.cartesian_prod(values, values).flatten()[None]
    dact = torch.ones(1, 100)
    found, wanted = compute(name, gate_up, dact, device), differentiate(gate_up, dact)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_no_rows(device, name):
    assert compute(name, torch.ones(0, 8), torch.ones(0, 4), device).shape == (0, 8)


def test_every_element_of_a_poisoned_output_is_written(rng, device):
    kernel = pytest.importorskip("oss_kernels.swiglu_backward.kernel")
    gate_up = torch.randn(11, 202, generator=rng).to(device)
    out = torch.full((12, 202), torch.nan, device=device)
    kernel.launch(gate_up, torch.ones(11, 101, device=device), out[:11], 1.702, 7.0)()
    assert out[:11].isfinite().all()
    assert out[11].isnan().all()
