"""The CPU's bfloat16 linear layer against float64."""

import pytest
import torch
from oss_kernels.linear import reference

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.linear import cpu


@pytest.mark.parametrize(
    ("tokens", "rows", "columns"),
    [(1, 5, 64), (1, 33, 96), (3, 17, 100), (4, 8, 2880), (5, 8, 2880), (2, 5, 40), (0, 5, 64)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_linear_computes_the_definition(rng, tokens, rows, columns, dtype):
    x, weight, bias, residual = (
        torch.randn(*shape, generator=rng).to(dtype)
        for shape in ((tokens, columns), (rows, columns), (rows,), (tokens, rows))
    )
    store = 2**-8 if dtype == torch.bfloat16 else 2**-23
    size = x.double().abs() @ weight.double().abs().T + bias.double().abs()
    for b in (bias, None):
        product = x.double() @ weight.double().T + (0 if b is None else b.double())
        got = cpu.linear(x, weight, b)
        assert got.dtype == dtype
        assert ((got.double() - product).abs() <= store * product.abs() + 1e-6 * size).all()
        added = cpu.linear(x, weight, b, residual)
        assert torch.equal(added, residual + got)
        assert added.shape == reference.linear(x, weight, b, residual).shape


def test_bits_depend_on_neither_threads_nor_other_tokens(rng, set_threads):
    x, weight = torch.randn(4, 160, generator=rng), torch.randn(37, 160, generator=rng)
    x, weight = x.bfloat16(), weight.bfloat16()
    got = []
    for threads in (1, 2):
        set_threads(threads)
        got.append(cpu.linear(x, weight, None))
    assert torch.equal(got[0], got[1])
    assert torch.equal(got[0], torch.cat([cpu.linear(token[None], weight, None) for token in x]))


def test_numbers_round_to_the_nearest_even_bfloat16(rng):
    x = torch.zeros(1, 64, dtype=torch.bfloat16)
    x[0, :2] = 1
    high = torch.randn(500, generator=rng).bfloat16()
    low = (high.float() * 2.0 ** torch.randint(-12, -5, (500,), generator=rng)).bfloat16()
    weight = torch.zeros(500, 64, dtype=torch.bfloat16)
    weight[:, 0], weight[:, 1] = high, low
    want = (high.float() + low.float()).bfloat16()  # the float32 sum is exact
    assert torch.equal(cpu.linear(x, weight, None)[0], want)


def test_infinities_and_nans_are_preserved(rng):
    x = torch.randn(1, 64, generator=rng).bfloat16()
    weight = torch.randn(3, 64, generator=rng).bfloat16()
    bias = torch.tensor([float("inf"), float("nan"), 0.0]).bfloat16()
    got = cpu.linear(x, weight, bias)[0]
    assert got[0].isposinf()
    assert got[1].isnan()
    assert got[2].isfinite()


def test_an_infinite_weight_gives_infinity_or_in_the_last_step_nan():
    x, weight = torch.ones(1, 100).bfloat16(), torch.ones(2, 100).bfloat16()
    weight[0, 3] = weight[1, 50] = float("inf")  # the first and the last step both read column 50
    got = cpu.linear(x, weight, None)[0]
    assert got[0].isposinf()
    assert got[1].isnan()
    assert reference.linear(x, weight, None).isposinf().all()


def test_weights_that_need_gradients_and_views(rng):
    weight = torch.nn.Parameter(torch.randn(64, 12, generator=rng).bfloat16()).T
    x = torch.randn(1, 64, generator=rng).bfloat16()
    with torch.no_grad():
        got = cpu.linear(x, weight, None)
    torch.testing.assert_close(
        got, reference.linear(x, weight.detach(), None), rtol=2e-2, atol=1e-2
    )
