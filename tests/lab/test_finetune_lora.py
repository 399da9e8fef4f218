"""Low-rank parts: their arithmetic and gradients, against ordinary weights in float64."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.errors import LabError
from oss_lab.finetune.adapted import AdaptedExperts, AdaptedLinear, AdaptedTransformer
from oss_lab.finetune.examples import Example
from oss_lab.finetune.lora import Lora, count_trained, make_lora
from oss_lab.finetune.loss import sum_nats
from oss_lab.finetune.packing import PackedRows, collate
from oss_lab.finetune.recipe import Recipe, make_recipe
from oss_lab.finetune.steps import Trainee, differentiate
from oss_lab.finetune.targets import TARGETS, matrix_size
from oss_lab.model import Transformer
from oss_lab.model.experts import DenseExperts
from oss_lab.model.transformer import Block

ALL = tuple(TARGETS)
IDS = torch.randint(0, 640, (2, 29), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(finetune_base):
    return load_model(open_checkpoint(finetune_base))


def draw_lora(model: Transformer, **settings: Any) -> Lora:
    """Parts whose `up` is random too."""
    lora = make_lora(model.config, make_recipe(model.config, **settings))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if name.endswith("up"):
                parameter.normal_(std=0.05, generator=generator)
    return lora


def merge_dense(model: Transformer, lora: Lora) -> Transformer:
    """The model in float64 with W + scale * up @ down as ordinary weights."""
    with torch.no_grad():
        merged = Transformer(model.config, DenseExperts).double()
        weights = {k: v.double() for k, v in model.state_dict().items() if v.is_floating_point()}
        for n, parts in enumerate(lora.parts()):
            block = cast(Block, model.block[n])
            change = {
                name: part.up.double() @ part.down.double() * part.scale
                for name, part in parts.items()
            }
            key = f"block.{n}"
            rows = [matrix_size(model.config, name) for name in ("q_proj", "k_proj", "v_proj")]
            three = [
                change.get(name, torch.zeros(size, dtype=torch.float64))
                for name, size in zip(("q_proj", "k_proj", "v_proj"), rows, strict=True)
            ]
            weights[f"{key}.attn.qkv.weight"] += torch.cat(three)
            weights[f"{key}.attn.out.weight"] += change.get("o_proj", 0)
            weights[f"{key}.mlp.gate.weight"] += change.get("router", 0)
            for ours, name in (("mlp1_weight", "gate_up_proj"), ("mlp2_weight", "down_proj")):
                packed = getattr(block.mlp, ours)
                experts = range(model.config.num_experts)
                for e, matrix in enumerate(packed.matrices(experts, torch.float64)):
                    added = change[name][e] if name in change else 0
                    weights[f"{key}.mlp.{ours}.dense.{e}"] = matrix + added
        merged.load_state_dict(weights)
    return merged


@pytest.mark.parametrize("targets", [ALL, ("k_proj",), ("router", "down_proj"), ("gate_up_proj",)])
def test_logits_are_those_of_the_merged_weights(model, targets) -> None:
    lora = draw_lora(model, targets=targets, rank=3, alpha=5)
    with torch.no_grad():
        expected = merge_dense(model, lora)(IDS)
        actual = AdaptedTransformer(model, lora)(IDS)
        plain = model(IDS)
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-4)
    assert (actual - plain).abs().max() > 1e-2


def test_untrained_parts_change_no_bit_and_the_model_stays_as_it_is(model) -> None:
    lora = make_lora(model.config, make_recipe(model.config, targets="all"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        adapted = AdaptedTransformer(model, lora)
        assert torch.equal(adapted(IDS), model(IDS))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(isinstance(m, AdaptedLinear | AdaptedExperts) for m in model.modules())
    assert adapted.embedding.weight is model.embedding.weight


def test_other_parts_of_the_computation_keep_the_adapter(model) -> None:
    lora = draw_lora(model, targets="all")
    adapted = AdaptedTransformer(model, lora)
    again = adapted.with_parts(model.parts)
    with torch.no_grad():
        assert torch.equal(again(IDS), adapted(IDS))


def test_first_values_are_pefts(model) -> None:
    """`up` is zero; `down` is uniform below 1 / sqrt(columns); the seed determines it."""
    lora, same, other = (
        make_lora(model.config, make_recipe(model.config, targets="all", seed=seed))
        for seed in (5, 5, 6)
    )
    for layer in lora.parts():
        assert list(layer) == list(ALL)
        for name, part in layer.items():
            bound = matrix_size(model.config, name)[1] ** -0.5
            assert not part.up.any()
            assert 0.8 * bound < part.down.abs().max() <= bound
    states = [each.state_dict() for each in (lora, same, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())
    trained = sum(value.numel() for value in states[0].values())
    assert trained == count_trained(model.config, make_recipe(model.config, targets="all"))


def example(length: int, seed: int) -> Example:
    ids = torch.randint(0, 640, (length,), generator=torch.Generator().manual_seed(seed))
    return Example(ids.tolist(), [n % 2 == 0 for n in range(length)])


ROWS = [[example(12, 0), example(5, 1)], [example(17, 2)], [example(9, 3), example(9, 4)]]


def gradients_of(model: Transformer, **settings: Any) -> list[Tensor]:
    recipe = make_recipe(model.config, targets="all", **settings)
    trainee = Trainee(model, draw_lora(model, targets="all"), recipe)
    pieces = [ROWS[n : n + recipe.rows] for n in range(0, len(ROWS), recipe.rows)]
    found = [differentiate(trainee, piece)[1] for piece in pieces]
    return [torch.stack(each).sum(0) for each in zip(*found, strict=True)]


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_gradients_are_those_of_the_merged_weights_in_float64(model, kernels) -> None:
    """The gradient of each factor follows from that of W + scale * up @ down."""
    lora = draw_lora(model, targets="all")
    merged = merge_dense(model, lora).requires_grad_(True)
    batch = collate(ROWS)
    unembedding, merged.unembedding = merged.unembedding, nn.Identity()  # pyright: ignore
    hidden = merged(batch.inputs, PackedRows(batch))
    sum_nats(hidden, unembedding, batch.targets, batch.weights).backward()
    names = [name for name, _ in lora.named_parameters()]
    found = dict(zip(names, gradients_of(model, kernels=kernels), strict=True))
    for n, parts in enumerate(lora.parts()):
        whole = gradients_by_target(cast(Block, merged.block[n]), model)
        for name, part in parts.items():
            gradient = whole[name] * part.scale
            for factor, exact in (
                ("up", gradient @ part.down.double().mT),
                ("down", part.up.double().mT @ gradient),
            ):
                actual = found[f"layers.{n}.{name}.{factor}"].double()
                error = (actual - exact).norm() / exact.norm()
                assert error < 1e-4, (n, name, factor)


def gradients_by_target(block: Block, model: Transformer) -> dict[str, Tensor]:
    rows = [matrix_size(model.config, name)[0] for name in ("q_proj", "k_proj", "v_proj")]
    assert block.attn.qkv.weight.grad is not None
    q, k, v = block.attn.qkv.weight.grad.split(rows)

    def stack(experts: Any) -> Tensor:
        each = [torch.zeros_like(m) if m.grad is None else m.grad for m in experts.dense]
        return torch.stack(each)

    return {
        "q_proj": q,
        "k_proj": k,
        "v_proj": v,
        "o_proj": block.attn.out.weight.grad,
        "router": block.mlp.gate.weight.grad,
        "gate_up_proj": stack(block.mlp.mlp1_weight),
        "down_proj": stack(block.mlp.mlp2_weight),
    }  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_recomputed_activations_give_the_same_bits(model, kernels) -> None:
    kept, again = (
        gradients_of(model, rows=3, recompute=value, kernels=kernels) for value in (False, True)
    )
    assert all(map(torch.equal, kept, again))


def test_rows_at_a_time_give_the_same_gradient(model) -> None:
    for one, three in zip(gradients_of(model, rows=1), gradients_of(model, rows=3), strict=True):
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)


def test_the_loss_in_pieces_is_the_loss(model, monkeypatch) -> None:
    hidden = torch.randn(2, 7, 32, requires_grad=True)
    targets, learned = torch.randint(0, 640, (2, 7)), torch.rand(2, 7) < 0.7
    monkeypatch.setattr("oss_lab.finetune.loss.PIECE", 3 * 640)
    nats = sum_nats(hidden, model.unembedding, targets, learned.float())
    logits = model.unembedding(hidden)[learned]
    whole = nn.functional.cross_entropy(logits, targets[learned], reduction="sum")
    torch.testing.assert_close(nats, whole)
    [ours] = torch.autograd.grad(nats, hidden)
    [exact] = torch.autograd.grad(whole, hidden)
    torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rnk": 3}, "there is no setting 'rnk'; did you mean 'rank'"),
        ({"rank": 0}, "rank is 0; it must be 1 or more"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1; it must be a number above 0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"warm_up": -1}, "warm_up is -1"),
        ({"length": 10_000}, "length is 10,000; the model's context has 8,192 tokens"),
        ({"targets": "mlp"}, "there is no target 'mlp'"),
        ({"targets": []}, "there is no target; give one of q_proj"),
        ({"channels": "finals"}, "there is no channel 'finals'; did you mean 'final'"),
        ({"roles": ["robot"]}, "there is no role 'robot'"),
        ({"effort": "max"}, "there is no effort 'max'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(model, settings, said) -> None:
    with pytest.raises(LabError) as caught:
        make_recipe(model.config, **settings)
    assert said in str(caught.value)


def test_groups_name_several_targets(model) -> None:
    assert make_recipe(model.config, targets=["experts", "attention"]).targets == Recipe.targets
    assert make_recipe(model.config, targets="all").targets == ALL
