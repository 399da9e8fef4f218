"""A linear layer for few tokens, against float64."""

import pytest
import torch
from oss_kernels.linear import reference

from oss_lab.config import ModelConfig
from oss_lab.model.attention import Attention

kernel = pytest.importorskip("oss_kernels.linear.kernel", reason="triton is not installed")

# A float32 sum: each thread adds up to 16 products, then a tree of at most 12 levels joins them;
# bias and residual are two more steps. Every step errs by at most 2^-24 of the sum of magnitudes.
SUM = 32 * 2**-24


def compute_in_float64(x, weight, bias, residual):
    """The definition: the result and the sum of the magnitudes of its terms."""
    terms = x.double()[:, None, :] * weight.double()
    added = [each.double() for each in (bias, residual) if each is not None]
    return sum(added, terms.sum(-1)), sum((each.abs() for each in added), terms.abs().sum(-1))


def count_wrong(out, x, weight, bias, residual, rounding) -> int:
    """How many elements are further off than one rounding and the float32 sum explain."""
    result, magnitude = compute_in_float64(x, weight, bias, residual)
    allowed = rounding[x.dtype] * result.abs() + (1 + rounding[x.dtype]) * SUM * magnitude
    return int((~((out.double() - result).abs() <= allowed)).sum())


def make(rng, device, dtype, tokens, rows, columns, *, bias=True, residual=True):
    def normal(*shape):
        return torch.randn(shape, generator=rng).to(device, dtype)

    optional = normal(rows) if bias else None, normal(tokens, rows) if residual else None
    return normal(tokens, columns), normal(rows, columns), *optional


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "rows", "columns"),
    [(1, 7, 2880), (3, 37, 96), (8, 5, 33), (2, 1, 1), (1, 3, 9000), (0, 5, 96)],
)
def test_the_kernel_computes_the_definition(rng, device, rounding, dtype, tokens, rows, columns):
    given = make(rng, device, dtype, tokens, rows, columns)
    out = kernel.linear(*given)
    assert (out.dtype, out.shape) == (dtype, (tokens, rows))
    assert count_wrong(out, *given, rounding) == 0


@pytest.mark.parametrize(("bias", "residual"), [(True, False), (False, True), (False, False)])
def test_bias_and_residual_may_be_missing(rng, device, rounding, bias, residual):
    given = make(rng, device, torch.float32, 2, 19, 64, bias=bias, residual=residual)
    assert count_wrong(kernel.linear(*given), *given, rounding) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tolerance_detects_a_missing_column(rng, device, rounding, dtype):
    x, weight, bias, residual = make(rng, device, dtype, 2, 16, 97)
    out = kernel.linear(x[:, :96], weight[:, :96], bias, residual)
    assert count_wrong(out, x, weight, bias, residual, rounding) > 16


def test_every_element_of_a_poisoned_output_is_written_and_nothing_else(rng, device):
    x, weight, bias, residual = make(rng, device, torch.float32, 3, 21, 97)
    memory = torch.full((5, 21), float("nan"), device=device)
    kernel.launch(x, weight, bias, residual, memory[1:4])()
    assert memory[1:4].isfinite().all()
    assert memory[0].isnan().all()
    assert memory[4].isnan().all()


def test_a_token_does_not_depend_on_its_neighbors(rng, device):
    x, weight, bias, residual = make(rng, device, torch.float32, 5, 18, 96)
    assert residual is not None
    alone = [kernel.linear(x[n, None], weight, bias, residual[n, None]) for n in range(5)]
    assert torch.equal(kernel.linear(x, weight, bias, residual), torch.cat(alone))


def test_many_tokens_are_computed_by_torch(rng, device):
    given = make(rng, device, torch.bfloat16, kernel.MAX_TOKENS + 1, 8, 32)
    assert torch.equal(kernel.linear(*given), reference.linear(*given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_equals_the_models_output_projection_and_the_definition(rng, dtype):
    attention = Attention(ModelConfig(hidden_size=96, num_attention_heads=8, head_dim=16))
    out = attention.out.to(dtype)
    z, x = (torch.randn(4, n, generator=rng).to(dtype) for n in (128, 96))
    assert torch.equal(reference.linear(z, out.weight, out.bias, x), x + out(z))
    precise = [each.detach().double() for each in (z, out.weight, out.bias, x)]
    result, _ = compute_in_float64(*precise)
    torch.testing.assert_close(reference.linear(*precise), result, rtol=1e-12, atol=1e-12)
