"""The functions of the model, each against its definition written in the plainest way."""

import math

import pytest
import torch
from torch.testing import assert_close

from oss_lab.model.attention import (
    mix_values,
    query_key_scores,
    softmax_with_sink,
    visible_keys,
)
from oss_lab.model.experts import DenseExperts
from oss_lab.model.hook import return_unchanged
from oss_lab.model.moe import (
    MixtureOfExperts,
    choose_experts,
    clamped_swiglu,
    run_experts_one_by_one,
    weigh_experts,
)
from oss_lab.model.norm import rms_norm
from oss_lab.model.rope import rotate


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("seq", [1, 5])
def test_grouped_attention_is_its_einsum(rng, rows, seq):
    batch, kv_heads, group, keys, head_dim = 3, 2, 4, 7, 16
    q = torch.randn(batch, kv_heads, group, seq, head_dim, generator=rng)
    k = torch.randn(rows, kv_heads, keys, head_dim, generator=rng)
    scores = torch.einsum("bghsd,bgtd->bghst", q, k)
    assert_close(query_key_scores(q.flatten(1, 2), k), scores.flatten(1, 2))
    z = torch.einsum("bghst,bgtd->bghsd", scores, k)
    assert_close(mix_values(scores.flatten(1, 2), k), z.flatten(1, 2))


def test_a_query_sees_itself_and_earlier_keys_within_the_window():
    positions = torch.tensor([[-1, 0, 1, 2, 3], [4, 5, 6, 7, 8]])
    for window in (None, 1, 3):
        visible = visible_keys(positions, positions, window)
        for row in range(2):
            for query, keys in zip(positions[row].tolist(), visible[row].tolist(), strict=True):
                for key, is_visible in zip(positions[row].tolist(), keys, strict=True):
                    is_near = window is None or query - key < window
                    assert is_visible == (0 <= key <= query and is_near)


def test_the_sink_takes_its_share_and_has_no_value():
    scores = torch.tensor([[[[0.0, math.log(3.0)], [-math.inf, -math.inf]]]])
    pattern, sink_mass = softmax_with_sink(scores, torch.tensor([[math.log(4.0)]]))
    assert_close(pattern, torch.tensor([[[[1 / 8, 3 / 8], [0.0, 0.0]]]]))
    assert_close(sink_mass, torch.tensor([[[1 / 2, 1.0]]]))
    pattern, sink_mass = softmax_with_sink(scores[:, :, :1], torch.tensor([[-math.inf]]))
    assert_close(pattern, scores[:, :, :1].softmax(-1))
    assert sink_mass.item() == 0


def test_the_weights_are_a_softmax_over_the_chosen_logits():
    logits = torch.tensor([[[0.0, 5.0, math.log(3.0), -9.0]]])
    ids = choose_experts(logits, 2)
    assert ids.tolist() == [[[1, 2]]]
    chosen = torch.tensor([[[5.0, math.log(3.0)]]])
    assert_close(weigh_experts(logits, ids), chosen.softmax(-1))
    assert weigh_experts(logits, choose_experts(logits, 1)).item() == 1


def test_the_gate_is_clamped_from_above_and_up_on_both_sides():
    gate, up = torch.tensor([9.0, -9.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 9.0, -9.0])

    def swish(x: float) -> float:
        return x / (1 + math.exp(-1.702 * x))

    expected = torch.tensor([2 * swish(7.0), 2 * swish(-9.0), 8 * swish(1.0), -6 * swish(1.0)])
    assert_close(clamped_swiglu(gate, up, 1.702, 7.0), expected)


def test_rms_norm_of_zeros_is_zero():
    assert not rms_norm(torch.zeros(2, 3), torch.ones(3), 1e-5).any()
    assert_close(
        rms_norm(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 1.0]), 0.0).square().sum(),
        torch.tensor((36 + 16) / 12.5),
    )


def test_a_rotation_by_a_quarter_turn_swaps_the_halves():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    cos, sin = torch.zeros(4), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    assert rotate(x, cos.view(1, 1, 1, 4), sin.view(1, 1, 1, 4)).flatten().tolist() == [
        -3,
        -4,
        1,
        2,
    ]


@pytest.mark.parametrize("batch", [1, 2])
def test_the_forward_of_the_experts_is_the_plain_loop(tiny_config, rng, batch):
    mlp = MixtureOfExperts(tiny_config, DenseExperts)
    assert isinstance(mlp.mlp1_weight, DenseExperts)
    assert isinstance(mlp.mlp2_weight, DenseExperts)
    for bias in (mlp.mlp1_bias, mlp.mlp2_bias, mlp.gate.bias):
        bias.data = torch.randn(bias.shape, generator=rng)
    x = torch.randn(batch, 20, tiny_config.hidden_size, generator=rng)
    with torch.no_grad():
        normed = mlp.norm(x)
        logits = mlp.gate(normed)
        ids = choose_experts(logits, mlp.slots)
        plain = run_experts_one_by_one(
            *(normed.flatten(0, 1), ids.flatten(0, 1), weigh_experts(logits, ids).flatten(0, 1)),
            *(list(mlp.mlp1_weight.dense), mlp.mlp1_bias),
            *(list(mlp.mlp2_weight.dense), mlp.mlp2_bias),
            *(mlp.alpha, mlp.limit),
        )
        assert_close(mlp(x, return_unchanged).flatten(0, 1), plain, rtol=1e-5, atol=1e-5)
