"""The router against float64, and its choices when several are correct."""

import pytest
import torch
from oss_kernels.router import reference

from oss_lab.config import ModelConfig
from oss_lab.model.experts import DenseExperts
from oss_lab.model.moe import MixtureOfExperts

kernel = pytest.importorskip("oss_kernels.router.kernel", reason="triton is not installed")

# tokens, hidden, experts, slots: nano's, a full tile and one more, 120b's experts, all sizes odd
SIZES = [(1, 96, 32, 4), (17, 96, 32, 4), (16, 100, 128, 4), (3, 33, 7, 5), (2, 64, 8, 8)]


def logits_in_float64(x, weight, bias):
    """The definition of the logits."""
    return torch.einsum("th,eh->te", x.double(), weight.double()) + bias.double()


def make_inputs(rng, device, dtype, tokens, hidden, experts):
    shapes = ((tokens, hidden), (experts, hidden), (experts,))
    return [torch.randn(*shape, generator=rng).to(device, dtype) for shape in shapes]


def choose_lower_first(logits, slots):
    """The kernel's choice: NaN first, then the largest; of equal logits the lower expert first."""
    return logits.sort(dim=-1, descending=True, stable=True).indices[:, :slots].int()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "hidden", "experts", "slots"), [*SIZES, (0, 96, 32, 4)])
def test_the_kernel_chooses_and_weighs_as_defined(
    rng, device, dtype, tokens, hidden, experts, slots
):
    x, weight, bias = make_inputs(rng, device, dtype, tokens, hidden, experts)
    ids, weights, shown = kernel.router(x, weight, bias, slots)
    assert (ids.dtype, weights.dtype, shown.dtype) == (torch.int32, torch.float32, torch.float32)
    assert ids.shape == weights.shape == (tokens, slots)
    logits = logits_in_float64(x, weight, bias)
    # A float32 sum of n products is off by at most n roundings of the sum of their magnitudes.
    bound = (
        logits_in_float64(x.abs(), weight.abs(), bias.abs()).amax() if tokens else torch.tensor(0.0)
    )
    error = (hidden + 1) * 2**-24 * bound.item()
    chosen = logits.gather(1, ids.long())
    best = logits.sort(dim=-1, descending=True).values[:, :slots]
    assert shown.shape == (tokens, experts)
    assert (shown - logits).abs().le(error).all()
    assert torch.equal(choose_lower_first(shown, slots), ids), "chosen by other logits than shown"
    assert (best - chosen).abs().le(2 * error).all()
    assert all(len(set(row)) == slots for row in ids.tolist())
    # The softmax of logits off by `error` is off by that times 2, plus its own few roundings.
    torch.testing.assert_close(
        weights.double(), chosen.softmax(-1), rtol=2 * error + 1e-6, atol=1e-30
    )


def test_of_equal_logits_the_kernel_chooses_the_lower_expert_and_the_reference_topks(rng, device):
    """Small integers, whose sums are exact in any order, so the ties are real."""
    x = torch.randint(-1, 2, (40, 32), generator=rng).to(device).float()
    weight = torch.randint(-1, 2, (32, 32), generator=rng).to(device).float()
    bias = torch.zeros(32, device=device)
    ids, weights, logits = kernel.router(x, weight, bias, 6)
    assert torch.equal(logits.double(), logits_in_float64(x, weight, bias))
    logits = logits_in_float64(x, weight, bias)
    assert any(len(set(row)) < 6 for row in logits.topk(6).values.tolist()), "no ties in the test"
    keys = logits * 64 - torch.arange(32, device=device)  # order by logit, then by expert
    assert ids.tolist() == keys.argsort(dim=-1, descending=True)[:, :6].tolist()
    ids_too, weights_too, _ = reference.router(x, weight, bias, 6)
    assert torch.equal(ids_too.cpu(), logits.cpu().topk(6).indices.int())
    assert not torch.equal(ids, ids_too), "topk takes the lower expert; the docstrings can go"
    torch.testing.assert_close(weights, weights_too, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tokens_choice_does_not_depend_on_the_other_tokens(rng, device, dtype):
    x, weight, bias = make_inputs(rng, device, dtype, 19, 96, 32)
    ids, weights, logits = kernel.router(x, weight, bias, 4)
    for token in (0, 7, 18):
        alone = kernel.router(x[token : token + 1], weight, bias, 4)
        assert torch.equal(ids[token], alone[0][0])
        assert torch.equal(weights[token], alone[1][0])
        assert torch.equal(logits[token], alone[2][0])


def test_every_element_of_poisoned_outputs_is_written_and_none_beyond(rng, device):
    x, weight, bias = make_inputs(rng, device, torch.float32, 5, 40, 12)
    ids = torch.full((6, 3), -7, dtype=torch.int32, device=device)
    weights = torch.full((6, 3), float("nan"), device=device)
    logits = torch.full((6, 12), float("nan"), device=device)
    kernel.launch(x, weight, bias, ids[:5], weights[:5], logits[:5])()
    assert ((ids[:5] >= 0) & (ids[:5] < 12)).all()
    assert weights[:5].isfinite().all()
    assert (ids[5] == -7).all()
    assert weights[5].isnan().all()
    assert logits[:5].isfinite().all()
    assert logits[5].isnan().all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
def test_nan_stays_nan_and_each_slot_has_another_expert(rng, device):
    x, weight, bias = make_inputs(rng, device, torch.float32, 3, 32, 5)
    x[1, 4] = float("nan")
    ids, weights, _ = kernel.router(x, weight, bias, 4)
    assert weights[1].isnan().all()
    assert weights[[0, 2]].isfinite().all()
    ids_too, _, logits = reference.router(x, weight, bias, 4)
    assert torch.equal(ids, choose_lower_first(logits, 4))
    assert torch.equal(ids[[0, 2]], ids_too[[0, 2]])
    assert len(set(ids_too[1].tolist())) == 4


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_experts_with_a_special_bias_are_chosen_once(rng, device, value):
    x, weight, bias = make_inputs(rng, device, torch.float32, 3, 32, 12)
    for few in ([7], [0, 2, 11], [n for n in range(12) if n != 3]):
        special = bias.clone()
        special[few] = value
        ids, weights, _ = kernel.router(x, weight, special, 4)
        ids_too, wanted, logits = reference.router(x, weight, special, 4)
        assert torch.equal(ids, choose_lower_first(logits, 4))
        assert all(len(set(row)) == 4 for row in ids_too.tolist())
        torch.testing.assert_close(weights, wanted, rtol=1e-5, atol=0, equal_nan=True)


@pytest.mark.parametrize(("tokens", "hidden", "experts", "slots"), SIZES)
def test_the_reference_is_the_definition(rng, tokens, hidden, experts, slots):
    x, weight, bias = (
        t.double() for t in make_inputs(rng, "cpu", torch.float32, tokens, hidden, experts)
    )
    ids, weights, logits = reference.router(x, weight, bias, slots)
    torch.testing.assert_close(logits, logits_in_float64(x, weight, bias), rtol=1e-13, atol=1e-13)
    best, best_ids = logits_in_float64(x, weight, bias).sort(dim=-1, descending=True)
    assert torch.equal(ids, best_ids[:, :slots].int())
    torch.testing.assert_close(weights, best[:, :slots].softmax(-1), rtol=1e-13, atol=0)


def test_the_reference_is_the_models_router(rng):
    config = ModelConfig(hidden_size=96, intermediate_size=32, num_experts=32, experts_per_token=4)
    model = MixtureOfExperts(config, DenseExperts)
    model.gate.bias.data = torch.randn(32, generator=rng)
    seen: dict[str, torch.Tensor] = {}
    model(torch.randn(1, 20, 96, generator=rng), lambda name, x: seen.setdefault(name, x))
    ids, weights, logits = reference.router(
        seen["moe.norm"][0], model.gate.weight.detach(), model.gate.bias.detach(), 4
    )
    assert torch.equal(ids, seen["moe.expert_ids"][0].int())
    torch.testing.assert_close(weights, seen["moe.expert_weights"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(logits, seen["moe.router_logits"][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("experts", [32, 128])
def test_the_reference_orders_equal_logits_as_the_model_does(rng, experts):
    config = ModelConfig(
        hidden_size=16, intermediate_size=8, num_experts=experts, experts_per_token=4
    )
    model = MixtureOfExperts(config, DenseExperts)
    model.gate.weight.data.zero_()  # the bias alone decides, and its ties are exact
    seen: dict[str, torch.Tensor] = {}
    for _ in range(20):
        seen.clear()
        model.gate.bias.data = torch.randint(0, 4, (experts,), generator=rng).float()
        model(torch.randn(1, 2, 16, generator=rng), lambda name, x: seen.setdefault(name, x))
        ids, _, _ = reference.router(
            seen["moe.norm"][0], model.gate.weight.detach(), model.gate.bias.detach(), 4
        )
        assert torch.equal(ids, seen["moe.expert_ids"][0].int())
