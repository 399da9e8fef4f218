"""RMSNorm against float64, in every backend that provides it."""

import pytest
import torch
from oss_kernels.rms_norm import reference

from oss_lab.model.norm import RMSNorm

kernel = pytest.importorskip("oss_kernels.rms_norm.kernel", reason="triton is not installed")
EPS = 1e-5


def compute_in_float64(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The definition."""
    wide = x.double()
    return wide / (wide.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * scale.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "hidden"), [(1, 96), (3, 64), (5, 2880), (2, 33), (0, 96)])
def test_the_kernel_computes_the_definition(rng, device, rounding, dtype, tokens, hidden):
    x = torch.randn(tokens, hidden, generator=rng).to(device, dtype)
    scale = torch.randn(hidden, generator=rng).to(device, dtype)
    out = kernel.rms_norm(x, scale, EPS)
    assert out.dtype == dtype
    # One store, and 1e-6 for the sum, root and products in float32.
    torch.testing.assert_close(
        out.double(), compute_in_float64(x, scale), rtol=rounding[dtype] + 1e-6, atol=1e-30
    )


def test_every_element_of_a_poisoned_output_is_written(rng, device):
    x, scale = torch.randn(3, 97, generator=rng).to(device), torch.ones(97, device=device)
    out = torch.full((4, 97), float("nan"), device=device)
    kernel.launch(x, scale, out[:3], EPS)()
    assert out[:3].isfinite().all()
    assert out[3].isnan().all()


def test_rows_of_very_different_magnitude_do_not_affect_each_other(rng, device):
    x = torch.randn(4, 64, generator=rng) * torch.tensor([1e-18, 1e-3, 1.0, 1e18])[:, None]
    out = kernel.rms_norm(x.to(device), torch.ones(64, device=device), EPS)
    torch.testing.assert_close(
        out.double().cpu(), compute_in_float64(x, torch.ones(64)), rtol=1e-6, atol=1e-30
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_equals_the_models_norm_and_the_definition(rng, dtype):
    norm = RMSNorm(96, EPS)
    norm.scale.data = torch.randn(96, generator=rng)
    x = torch.randn(7, 96, generator=rng).to(dtype)
    ours = reference.rms_norm(x, norm.scale.data, EPS)
    assert torch.equal(ours, norm(x))
    precise = reference.rms_norm(x.double(), norm.scale.data.double(), EPS)
    torch.testing.assert_close(precise, compute_in_float64(x, norm.scale.data), rtol=1e-15, atol=0)
