"""A token's chosen experts against float64, for few tokens and for tiles of tokens."""

from dataclasses import replace

import pytest
import torch
from oss_kernels.experts import reference
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.mxfp4 import NAN_SCALE, dequantize, quantize

from oss_lab.config import ModelConfig
from oss_lab.model.experts import PackedExperts
from oss_lab.model.moe import MixtureOfExperts

pytest.importorskip("triton", reason="triton is not installed")
from oss_kernels.experts import decode, kernel, prefill
from oss_kernels.experts.grouping import make_tiles, tile_count

ALPHA = 1.702
LIMIT = 1.0  # 7 in the models; random numbers should reach it
UNIT = 2**-24  # half the relative distance between neighboring float32 numbers

# tokens, slots, experts, hidden, width: each with one dtype here and the other in the slow tests
DECODED = [
    (torch.float32, 1, 4, 8, 96, 96),
    (torch.bfloat16, 2, 2, 5, 64, 32),
    (torch.float32, 0, 2, 3, 32, 32),
]
TILED = [
    (torch.bfloat16, 1, 4, 8, 96, 96),
    (torch.float32, 2, 2, 5, 64, 32),
    (torch.bfloat16, 0, 2, 3, 32, 32),
    (torch.float32, 33, 2, 5, 64, 96),
    (torch.bfloat16, 100, 2, 3, 96, 32),
    (torch.float32, 9, 4, 32, 32, 64),
]
QUICK = [(module, *case) for module, of in ((decode, DECODED), (prefill, TILED)) for case in of]
OTHER = {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}
SLOW = [(module, OTHER[dtype], *sizes) for module, dtype, *sizes in QUICK]


def name(value) -> str:
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


def make_weights(rng, device, dtype, experts, hidden, width) -> ExpertWeights:
    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    gate_up = quantize(normal(experts, 2 * width, hidden) * hidden**-0.5)
    down = quantize(normal(experts, hidden, width) * width**-0.5)
    biases = normal(experts, 2 * width).to(dtype), normal(experts, hidden).to(dtype)
    every = (*gate_up, biases[0], *down, biases[1])
    return ExpertWeights(*(tensor.to(device) for tensor in every))


def make_inputs(rng, device, dtype, tokens, slots, experts, hidden, width):
    x = torch.randn(tokens, hidden, generator=rng).to(device, dtype)
    ids = torch.rand(tokens, experts, generator=rng).argsort(-1)[:, :slots].int().to(device)
    weights = torch.rand(tokens, slots, generator=rng).to(device)
    return x, ids, weights, make_weights(rng, device, dtype, experts, hidden, width)


def compute_in_float64(x, ids, weights, experts: ExpertWeights, rounding: float = 0.0):
    """The definition, token by token in float64, and a bound on the error of a kernel that adds in
    float32 and rounds activations and outputs by `rounding`.

    A float32 sum of n products is off by at most n units of the sum of their magnitudes. The
    activation function passes on at most 2.2 times its gate's error (silu's steepest slope is 1.1,
    and up + 1 is at most 2) and 0.85 times its up's (silu at the limit). Its own few operations add
    8 units.
    """

    def matrix(blocks, scales, expert):
        return dequantize(blocks[expert], scales[expert], torch.float64)

    out = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    bound = torch.zeros_like(out)
    for token in range(len(x)):
        for expert, weight in zip(ids[token].tolist(), weights[token].tolist(), strict=True):
            first = matrix(experts.gate_up_blocks, experts.gate_up_scales, expert)
            bias = experts.gate_up_bias[expert].double()
            rows = first @ x[token].double() + bias
            error = first.abs() @ x[token].double().abs() + bias.abs()
            error = error * (first.shape[1] + 1) * UNIT
            gate, up = rows[0::2], rows[1::2]
            gate = torch.where(gate > LIMIT, LIMIT, gate)
            up = torch.where(up > LIMIT, LIMIT, torch.where(up < -LIMIT, -LIMIT, up))
            activation = gate / (1 + torch.exp(-ALPHA * gate)) * (up + 1)
            error = 2.2 * error[0::2] + 0.85 * error[1::2]
            error = error + activation.abs() * (8 * UNIT + rounding)

            second = matrix(experts.down_blocks, experts.down_scales, expert)
            bias = experts.down_bias[expert].double()
            size = second.abs() @ activation.abs() + bias.abs()
            out[token] += weight * (second @ activation + bias)
            bound[token] += weight * second.abs() @ error
            bound[token] += weight * size * (second.shape[1] + 1 + ids.shape[1]) * UNIT
    return out, bound + out.abs() * rounding


def run(module, x, ids, weights, experts):
    return module.expert_mlp(x, ids, weights, experts, alpha=ALPHA, limit=LIMIT)


@pytest.mark.parametrize(
    "case",
    [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda case: "-".join(map(name, case)),
)
def test_the_kernels_compute_the_definition(rng, device, rounding, case):
    module, dtype, *sizes = case
    x, ids, weights, experts = make_inputs(rng, device, dtype, *sizes)
    out = run(module, x, ids, weights, experts)
    assert out.dtype == dtype
    expected, bound = compute_in_float64(x, ids, weights, experts, rounding[dtype])
    assert ((out.double() - expected).abs() <= bound).all()


def test_the_bound_detects_swapped_gate_and_up_or_a_misplaced_weight(rng, device, rounding):
    x, ids, weights, experts = make_inputs(rng, device, torch.bfloat16, 20, 2, 5, 64, 96)
    out = run(prefill, x, ids, weights, experts).double()
    exchanged = replace(
        experts,
        gate_up_blocks=experts.gate_up_blocks.unflatten(1, (-1, 2)).flip(2).flatten(1, 2),
        gate_up_scales=experts.gate_up_scales.unflatten(1, (-1, 2)).flip(2).flatten(1, 2),
    )
    for wrong in ((x, ids, weights, exchanged), (x, ids, weights.flip(1), experts)):
        expected, bound = compute_in_float64(*wrong, rounding[torch.bfloat16])
        assert ((out - expected).abs() > bound).any(dim=1).all()


@pytest.mark.parametrize("module", [decode, prefill], ids=name)
def test_every_element_of_poisoned_buffers_is_written_and_none_beyond(rng, device, module):
    tokens, slots, hidden, width = 2, 2, 96, 32
    x, ids, weights, experts = make_inputs(
        rng, device, torch.float32, tokens, slots, 3, hidden, width
    )

    def make_poisoned(rows, columns):
        return torch.full((rows + 1, columns), float("nan"), device=device)

    activation, by_slot = (
        make_poisoned(tokens * slots, width),
        make_poisoned(tokens * slots, hidden),
    )
    out = make_poisoned(tokens, hidden)
    buffers = [activation, out]
    if module is decode:
        launches = decode.make_launches(
            x, ids, weights, experts, activation, out[:-1], ALPHA, LIMIT
        )
    else:
        buffers.append(by_slot)
        tiles = make_tiles(ids, 3, prefill.tile_size(ids.numel(), 3, x.dtype))
        launches = prefill.make_launches(
            x, weights, experts, tiles, activation, by_slot, out[:-1], ALPHA, LIMIT
        )
    for launch in launches:
        launch()
    for buffer in buffers:
        assert buffer[:-1].isfinite().all()
        assert buffer[-1].isnan().all()


@pytest.mark.parametrize("module", [decode, prefill], ids=name)
def test_nan_weights_reach_the_tokens_that_chose_them_and_no_others(rng, device, module):
    """Clamps must not hide a NaN, and experts that no token chose must not be read."""
    x, _, weights, experts = make_inputs(rng, device, torch.float32, 4, 2, 6, 32, 32)
    ids = torch.tensor([[0, 2], [2, 3], [5, 0], [3, 0]], dtype=torch.int32, device=device)
    experts.gate_up_scales[[1, 4]] = NAN_SCALE  # chosen by no token
    experts.down_bias[[1, 4]] = float("nan")
    experts.gate_up_scales[2, 7, 0] = NAN_SCALE  # an up projection for tokens 0 and 1
    experts.gate_up_scales[5, 8, 0] = NAN_SCALE  # a gate projection for token 2
    out = run(module, x, ids, weights, experts)
    assert out.isnan().all(dim=1).tolist() == [True, True, True, False]
    assert out[3].isfinite().all()


def test_all_tokens_may_choose_the_same_experts(rng, device, rounding):
    x, ids, weights, experts = make_inputs(rng, device, torch.float32, 37, 2, 32, 32, 32)
    ids[:] = torch.tensor([31, 4])
    expected, bound = compute_in_float64(x, ids, weights, experts, rounding[torch.float32])
    assert ((run(prefill, x, ids, weights, experts).double() - expected).abs() <= bound).all()


def test_a_decoded_token_does_not_depend_on_the_other_tokens(rng, device):
    x, ids, weights, experts = make_inputs(rng, device, torch.bfloat16, 3, 2, 5, 32, 32)
    together = run(decode, x, ids, weights, experts)
    alone = run(decode, x[1:2], ids[1:2], weights[1:2], experts)
    assert torch.equal(together[1:2], alone)


def test_the_same_tokens_in_tiles_give_the_same_bits(rng, device):
    arguments = make_inputs(rng, device, torch.float32, 40, 2, 5, 32, 32)
    assert torch.equal(run(prefill, *arguments), run(prefill, *arguments))


@pytest.mark.parametrize(("tokens", "taken"), [(8, "decode"), (9, "prefill")])
def test_few_tokens_are_decoded_and_more_are_tiled(rng, monkeypatch, tokens, taken):
    for module in (decode, prefill):
        monkeypatch.setattr(module, "expert_mlp", lambda *_, module=module, **__: name(module))
    assert run(kernel, *make_inputs(rng, "cpu", torch.float32, tokens, 2, 3, 32, 32)) == taken


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize(
    ("tokens", "slots", "experts"), [(0, 4, 8), (1, 4, 32), (33, 4, 8), (50, 1, 3), (17, 2, 128)]
)
def test_each_tile_has_one_expert_and_each_pair_is_in_one_tile(rng, tokens, slots, experts, size):
    ids = torch.rand(tokens, experts, generator=rng).argsort(-1)[:, :slots].int()
    tiles = make_tiles(ids, experts, size)
    flat, seen = ids.flatten().tolist(), []
    for expert, first, end in zip(tiles.expert, tiles.first, tiles.end, strict=True):
        held = tiles.pairs[first:end].tolist() if first < end else []
        assert len(held) <= size
        assert all(flat[pair] == expert for pair in held)
        seen += held
    assert seen == tiles.pairs.tolist()
    assert sorted(seen) == list(range(tokens * slots))


def test_there_are_enough_tiles_for_the_worst_choice():
    """29 pairs over 4 experts in tiles of 16. The worst case: three experts have one pair each."""
    ids = torch.tensor([0, 1, 2] + [3] * 26, dtype=torch.int32)[:, None]
    tiles = make_tiles(ids, 4, 16)
    assert tile_count(29, 4, 16) == len(tiles.first) == 5
    assert (tiles.first < tiles.end).all()


def test_the_reference_is_the_definition(rng):
    x, ids, weights, experts = make_inputs(rng, "cpu", torch.float32, 7, 3, 5, 64, 96)
    precise = run(reference, x.double(), ids, weights.double(), experts)
    torch.testing.assert_close(
        precise, compute_in_float64(x, ids, weights, experts)[0], rtol=1e-12, atol=1e-13
    )


def test_the_reference_equals_the_models_mixture_of_experts(rng):
    config = ModelConfig(
        hidden_size=96, intermediate_size=64, num_experts=8, experts_per_token=4, swiglu_limit=LIMIT
    )
    model = MixtureOfExperts(config, PackedExperts)
    experts = make_weights(rng, "cpu", torch.float32, 8, 96, 64)
    for bank, which in ((model.mlp1_weight, "gate_up"), (model.mlp2_weight, "down")):
        assert isinstance(bank, PackedExperts)
        bank.blocks = getattr(experts, f"{which}_blocks")
        bank.scales = getattr(experts, f"{which}_scales")
    model.mlp1_bias.data, model.mlp2_bias.data = experts.gate_up_bias, experts.down_bias
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        model(torch.randn(1, 20, 96, generator=rng), lambda point, x: seen.setdefault(point, x))
    x, ids, weights = (
        seen[f"moe.{point}"][0] for point in ("norm", "expert_ids", "expert_weights")
    )
    _, bound = compute_in_float64(x, ids, weights, experts, UNIT)
    ours = run(reference, x, ids, weights, experts)
    assert ((ours - seen["moe.out"][0]).abs() <= 2 * bound).all()
