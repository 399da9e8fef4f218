"""Norm and router of a decode step, over many programs, against float64."""

import pytest
import torch

decode = pytest.importorskip("oss_kernels.router.decode", reason="triton is not installed")
EPS = 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("tokens", "hidden", "experts", "slots"), [(1, 96, 32, 4), (2, 64, 7, 3), (1, 2880, 4, 4)]
)
def test_logits_choice_and_arranged_x_are_as_defined(
    rng, device, rounding, dtype, tokens, hidden, experts, slots
):
    x, scale, weight, bias = (
        torch.randn(*shape, generator=rng).to(device, dtype)
        for shape in ((tokens, hidden), (hidden,), (experts, hidden), (experts,))
    )
    nan = float("nan")
    logits, weights = (torch.full((tokens, n), nan, device=device) for n in (experts, slots))
    ids = torch.full((tokens, slots), -1, dtype=torch.int32, device=device)
    arranged = torch.full_like(x, nan)
    given = x, scale, EPS, weight, bias, logits, ids, weights, arranged
    for launch in decode.make_launches(*given):
        launch()
    wide = x.double()
    normed = wide / (wide.square().mean(-1, keepdim=True) + EPS).sqrt() * scale.double()
    terms = normed[:, None] * weight.double()
    off = (rounding[dtype] + (hidden + 8) * 2**-24) * (terms.abs().sum(-1) + bias.double().abs())
    assert ((logits - (terms.sum(-1) + bias.double())).abs() <= off).all()
    best = logits.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(ids, best.indices[:, :slots].int())
    torch.testing.assert_close(weights, best.values[:, :slots].softmax(-1), rtol=1e-6, atol=0)
    planes = arranged.double() * 2.0**-64  # [token, place in a word, word]
    in_order = planes.unflatten(1, (8, -1)).mT.flatten(1)
    torch.testing.assert_close(in_order, normed, rtol=2 * rounding[dtype] + 1e-6, atol=0)
