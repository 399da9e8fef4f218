"""LoRA adapters merged into a checkpoint, compared with W + scale * B A in float64."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from oss_lab.checkpoint.adapter import Adapter, read_adapter
from oss_lab.checkpoint.adapter_config import USED
from oss_lab.checkpoint.merge import Changed, merge_adapter
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.values import read_values
from oss_lab.cli.main import main
from oss_lab.errors import CheckpointError

RANK, ALPHA = 2, 6
ATTENTION = "model.layers.1.self_attn.q_proj"
EXPERTS = "model.layers.0.mlp.experts"
PREFIX = "base_model.model."
Key = tuple[str, int | None]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def factors(
    layer: str, outputs: int, inputs: int, rank: int = RANK, experts: int = 1
) -> dict[str, Tensor]:
    """The two tensors of one layer, named as PEFT names them."""
    return {
        f"{PREFIX}{layer}.lora_A.weight": draw(experts * rank, inputs),
        f"{PREFIX}{layer}.lora_B.weight": draw(outputs, experts * rank, seed=1),
    }


@pytest.fixture
def write_adapter(tmp_path):
    """`write_adapter(tensors, use_rslora=True)`: a folder with these tensors and fields."""

    def write(tensors: dict[str, Tensor], **fields: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **fields}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return write


@pytest.fixture
def sizes(tiny_config):
    """A configuration in which no two sizes of an expert's matrices are equal."""
    return replace(tiny_config, intermediate_size=96)


@pytest.fixture
def base(write_tiny, sizes):
    """A checkpoint with that configuration."""
    return open_checkpoint(write_tiny(config=sizes))


def merged(base, folder: Path) -> tuple[dict[Key, Tensor], dict[str, Changed], Adapter]:
    """All values after the merge; checks that only those of the adapter changed."""
    adapter, changed = read_adapter(folder, base.config, "tiny"), {}
    after = {
        (v.name, v.expert): v.tensor for v in merge_adapter(read_values(base), adapter, changed)
    }
    for value in read_values(base):
        key = (value.name, value.expert)
        if key not in adapter.changes:
            assert torch.equal(after[key], value.tensor)
    return after, changed, adapter


def values_of(base) -> dict[Key, Tensor]:
    return {(value.name, value.expert): value.tensor.double() for value in read_values(base)}


def assert_equal(actual: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(actual.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rslora", [False, True])
def test_a_linear_layer(base, write_adapter, rslora) -> None:
    tensors = factors(ATTENTION, 64, 64)
    after, changed, adapter = merged(base, write_adapter(tensors, use_rslora=rslora))
    a, b = (tensor.double() for tensor in tensors.values())
    scale = ALPHA / RANK**0.5 if rslora else ALPHA / RANK
    before = values_of(base)[f"{ATTENTION}.weight", None]
    assert_equal(after[f"{ATTENTION}.weight", None], before + scale * b @ a)
    [change] = changed.values()
    assert change.tensors == 1
    assert change.relative == pytest.approx(float((scale * b @ a).norm() / before.norm()), rel=1e-3)
    assert adapter.notes == ()


def test_patterns_give_single_layers_their_rank_and_alpha(base, write_adapter) -> None:
    other = ATTENTION.replace("layers.1", "layers.0")
    tensors = factors(ATTENTION, 64, 64, rank=4) | factors(other, 64, 64)
    folder = write_adapter(
        tensors, rank_pattern={r"layers\.1\..*q_proj": 4}, alpha_pattern={"1.self_attn.q_proj": 5.0}
    )
    after, _, _ = merged(base, folder)
    for layer, scale in ((ATTENTION, 5 / 4), (other, ALPHA / RANK)):
        a, b = (tensors[f"{PREFIX}{layer}.lora_{x}.weight"].double() for x in "AB")
        exact = values_of(base)[f"{layer}.weight", None] + scale * b @ a
        assert_equal(after[f"{layer}.weight", None], exact)


def stacked_delta(a: Tensor, b: Tensor, experts: int, exchanged: bool) -> Tensor:
    """The change of PEFT's parameter [experts, inputs, outputs], as outputs x inputs."""
    a = a.double().reshape(experts, -1, a.shape[-1])
    b = b.double().reshape(b.shape[0], -1, experts)
    if exchanged:
        return torch.einsum("ore,eri->eoi", b, a).mT * ALPHA / RANK
    return torch.einsum("ore,eri->eio", b, a).mT * ALPHA / RANK


@pytest.mark.parametrize("exchanged", [False, True], ids=["direct", "exchanged"])
@pytest.mark.parametrize("width", [96, 64, 32])
def test_stacked_experts(write_tiny, tiny_config, write_adapter, width, exchanged) -> None:
    """Widths: all sizes differ; a square down_proj, as in 20b; a square gate_up_proj."""
    config = replace(tiny_config, intermediate_size=width)
    base, experts = open_checkpoint(write_tiny(config=config)), config.num_experts
    shapes = {f"{EXPERTS}.base_layer": (2 * width, 64), EXPERTS: (64, width)}
    names = {f"{EXPERTS}.base_layer": "gate_up_proj", EXPERTS: "down_proj"}
    tensors: dict[str, Tensor] = {}
    for module, (outputs, inputs) in shapes.items():
        sides = (inputs, outputs) if exchanged else (outputs, inputs)
        tensors |= factors(module, *sides, experts=experts)
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    folder = write_adapter(tensors, target_parameters=targets, peft_version="0.21.2")
    after, changed, adapter = merged(base, folder)
    before = values_of(base)
    for module, name in names.items():
        a, b = (tensors[f"{PREFIX}{module}.lora_{x}.weight"] for x in "AB")
        delta = stacked_delta(a, b, experts, exchanged)
        for expert in range(experts):
            key = f"{EXPERTS}.{name}", expert
            assert_equal(after[key], before[key] + delta[expert])
    assert [change.tensors for change in changed.values()] == [experts, experts]
    assert adapter.notes == ()


def test_a_square_parameter_alone_is_reported(write_tiny, tiny_config, write_adapter) -> None:
    config = replace(tiny_config, intermediate_size=64)
    base = open_checkpoint(write_tiny(config=config))
    tensors = factors(EXPERTS, 64, 64, experts=4)
    after, _, adapter = merged(base, write_adapter(tensors))
    a, b = tensors.values()
    exact = values_of(base)[f"{EXPERTS}.down_proj", 3] + stacked_delta(a, b, 4, False)[3]
    assert_equal(after[f"{EXPERTS}.down_proj", 3], exact)
    assert "does not show whether inputs and outputs are exchanged" in adapter.notes[0]


def test_unsloth_has_a_layer_per_expert(base, write_adapter) -> None:
    tensors = factors(f"{EXPERTS}.gate_up_projs.3", 192, 64)
    tensors |= factors(f"{EXPERTS}.down_projs.0", 64, 96)
    tensors |= factors("model.layers.0.mlp.router.linear", 4, 64)
    after, changed, _ = merged(base, write_adapter(tensors))
    for key, layer in (
        ((f"{EXPERTS}.gate_up_proj", 3), f"{EXPERTS}.gate_up_projs.3"),
        ((f"{EXPERTS}.down_proj", 0), f"{EXPERTS}.down_projs.0"),
        (("model.layers.0.mlp.router.weight", None), "model.layers.0.mlp.router.linear"),
    ):
        a, b = (tensors[f"{PREFIX}{layer}.lora_{x}.weight"].double() for x in "AB")
        assert_equal(after[key], values_of(base)[key] + ALPHA / RANK * b @ a)
    assert [change.tensors for change in changed.values()] == [1, 1, 1]


def test_whole_tensors_biases_and_the_embedding(base, write_adapter) -> None:
    embedding, norm = "model.embed_tokens", "model.layers.0.input_layernorm.weight"
    tensors = {
        f"{PREFIX}{norm}": draw(64),
        f"{PREFIX}lm_head.modules_to_save.weight": draw(96, 64),
        f"{PREFIX}{EXPERTS}.down_proj": draw(4, 96, 64),
        f"{PREFIX}{embedding}.lora_embedding_A": draw(RANK, 96),
        f"{PREFIX}{embedding}.lora_embedding_B": draw(64, RANK),
        **factors(ATTENTION, 64, 64),
        f"{PREFIX}{ATTENTION}.base_layer.bias": draw(64, seed=5),
        f"{PREFIX}{ATTENTION}.lora_B.bias": draw(64, seed=6),
        f"{PREFIX}{EXPERTS}.lora_A.weight": draw(RANK, 192),
        f"{PREFIX}{EXPERTS}.lora_B.weight": draw(4, RANK),
    }
    after, _, _ = merged(base, write_adapter(tensors))
    before, scale = values_of(base), ALPHA / RANK
    given = {name.removeprefix(PREFIX): each.double() for name, each in tensors.items()}
    assert_equal(after[norm, None], given[norm])
    assert_equal(after["lm_head.weight", None], given["lm_head.modules_to_save.weight"])
    assert_equal(after[f"{EXPERTS}.down_proj", 2], given[f"{EXPERTS}.down_proj"][2].T)
    low = given[f"{embedding}.lora_embedding_B"] @ given[f"{embedding}.lora_embedding_A"]
    key = f"{embedding}.weight", None
    assert_equal(after[key], before[key] + scale * low.T)
    bias = given[f"{ATTENTION}.base_layer.bias"] + scale * given[f"{ATTENTION}.lora_B.bias"]
    assert_equal(after[f"{ATTENTION}.bias", None], bias)
    delta = given[f"{EXPERTS}.lora_B.weight"] @ given[f"{EXPERTS}.lora_A.weight"]
    key = f"{EXPERTS}.gate_up_proj_bias", None
    assert_equal(after[key], before[key] + scale * delta)


def named(tensors: dict[str, Tensor], name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    """`tensors` with one tensor replaced, added, or (None) removed."""
    changed = {key: each for key, each in tensors.items() if key != PREFIX + name}
    return changed if tensor is None else {**changed, PREFIX + name: tensor}


GOOD = factors(ATTENTION, 64, 64)
A, B = f"{ATTENTION}.lora_A.weight", f"{ATTENTION}.lora_B.weight"


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({**GOOD, **factors("model.layers.7.self_attn.q_proj", 64, 64)}, "does not have"),
        (factors("model.layers.7.mlp.experts", 192, 64, experts=4), "does not have"),
        (factors(f"{EXPERTS}.gate_up_projs.4", 192, 64), "does not have"),
        (factors("model.layers.0.mlp.gate_proj", 64, 64), "does not have"),
        (factors(ATTENTION, 64, 128), "do not fit [64, 64]; merge into the model that"),
        (factors(EXPERTS, 48, 48, experts=4), "do not fit [4, 64, 192]; merge into"),
        (factors(EXPERTS, 192, 64, experts=3), "do not fit"),
        (factors(ATTENTION, 64, 64, rank=4), "the rank 2, but its tensors have rank 4; use"),
        (named(GOOD, B, None), "q_proj.lora_A in adapter_model.safetensors has no lora_B; save"),
        (named(GOOD, A, None), "q_proj.lora_B in adapter_model.safetensors has no lora_A; save"),
        (named(GOOD, A, draw(RANK, 64, 1)), "is not a matrix; save it again"),
        (named(GOOD, A, draw(RANK, 64).fill_(torch.nan)), "contains NaN or infinity; train"),
        (named(GOOD, A, torch.zeros(RANK, 64, dtype=torch.uint8)), "is U8; save the adapter in a"),
        (named(GOOD, f"{ATTENTION}.lora_magnitude_vector", draw(64)), "is not LoRA; remove it"),
        (named(GOOD, f"{ATTENTION}.hada_w1_a", draw(64, 2)), "is not LoRA; remove it"),
        (named(GOOD, "lm_head.weight", draw(100, 64)), "has shape [100, 64], not [96, 64]; merge"),
        ({**GOOD, "again." + A: draw(RANK, 64), "again." + B: draw(64, RANK)}, "does not have"),
        ({**GOOD, **{k.removeprefix(PREFIX): v for k, v in GOOD.items()}}, "twice; save it again"),
        ({}, "contains no tensor; train the adapter"),
    ],
)
def test_a_tensor_that_cannot_be_merged_is_named(base, write_adapter, tensors, said) -> None:
    with pytest.raises(CheckpointError) as caught:
        merged(base, write_adapter({name: each.clone() for name, each in tensors.items()}))
    assert said in str(caught.value)
    assert "adapter" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "LOHA"}, 'has peft_type "LOHA"; only LORA can be merged'),
        ({"peft_type": None}, "has peft_type null"),
        ({"use_dora": True}, "sets use_dora to true, which is not plain LoRA; merge the adapter"),
        ({"layer_replication": [[0, 2]]}, "sets layer_replication"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices"),
        ({"a_later_invention": 1}, "sets a_later_invention to 1"),
        ({"init_lora_weights": "pissa_niter_4"}, "which changes the base weights; save"),
        ({"r": True}, "has r true; it must be a positive integer"),
        ({"r": 0}, "has r 0; it must be"),
        ({"lora_alpha": None}, "has lora_alpha null; it must be a positive number"),
        ({"lora_alpha": 1e400}, "has lora_alpha Infinity"),
        ({"rank_pattern": {"(": 4}}, "which is not a pattern"),
        ({"rank_pattern": {"x": 1.5}}, "has rank_pattern.x 1.5; it must be a positive integer"),
        ({"alpha_pattern": [1]}, "has alpha_pattern [1], not an object"),
        ({"use_rslora": "yes"}, 'has use_rslora "yes"; use true or false'),
    ],
)
def test_another_kind_of_adapter_is_refused(base, write_adapter, fields, said) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json") as caught:
        merged(base, write_adapter(GOOD, **fields))
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 0.5, True, [1], {"a": 1}, 10**400])
def test_any_value_of_a_field_is_used_or_refused(base, write_adapter, value) -> None:
    for name in USED:
        with suppress(CheckpointError):
            read_adapter(write_adapter(GOOD, **{name: value}), base.config, "tiny")


def test_a_folder_that_is_no_adapter_is_refused(base, tmp_path, write_adapter) -> None:
    def refused() -> str:
        with pytest.raises(CheckpointError) as caught:
            read_adapter(folder, base.config, "tiny")
        return str(caught.value)

    folder = write_adapter(GOOD)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "copy the adapter again" in refused()
    weights.rename(folder / "adapter_model.bin")
    assert "is a pickle file, which can run code when read; save" in refused()
    (folder / "adapter_model.bin").unlink()
    assert "contains no adapter_model.safetensors; save the adapter with PEFT" in refused()
    (folder / "adapter_config.json").write_text("{")
    assert "adapter_config.json is not JSON" in refused()
    folder = tmp_path
    assert "contains no adapter_config.json; use its subfolder adapter" in refused()
    folder = tmp_path / "nothing"
    assert "contains no adapter_config.json; give a folder that PEFT saved" in refused()


def test_an_unused_target_and_another_base_are_reported(base, write_adapter) -> None:
    folder = write_adapter(
        GOOD, target_parameters=["mlp.experts.down_proj"], base_model_name_or_path="openai/other"
    )
    _, _, adapter = merged(base, folder)
    assert adapter.notes == (
        "adapter_config.json names the base model openai/other, but it is merged into tiny",
        "target_parameters lists mlp.experts.down_proj, but adapter_model.safetensors has no"
        " tensor for it",
    )


def test_a_change_that_meets_no_value_is_an_error(base, write_adapter) -> None:
    adapter = read_adapter(write_adapter(GOOD), base.config, "tiny")
    with pytest.raises(CheckpointError, match="which the checkpoint does not have"):
        list(merge_adapter([], adapter, {}))


def test_convert_merges_and_prints_the_change_and_the_rounding(
    write_adapter, write_tiny, sizes, tmp_path, capsys
) -> None:
    tensors = factors(ATTENTION, 64, 64) | factors(EXPERTS, 64, 96, experts=4)
    tensors = {name: tensor * 0.001 for name, tensor in tensors.items()}
    folder = write_adapter(tensors, base_model_name_or_path="openai/gpt-oss-20b")
    (folder / "tokenizer.json").write_text("{}")
    source = str(write_tiny(config=sizes))

    def convert(out: str, *more: str) -> tuple[str, str]:
        arguments = ["convert", source, "--to", "huggingface", "--adapter", str(folder)]
        assert main([*arguments, "--out", str(tmp_path / out), *more]) == 0
        said = capsys.readouterr()
        return " ".join(said.out.split()), " ".join(said.err.split())

    out, error = convert("packed")
    assert "self_attn.q_proj.weight: merged into 1 tensors, relative change 0." in out
    assert "mlp.experts.down_proj: merged into 4 tensors" in out
    assert "less than its rounding error" in out
    assert "--experts bf16 keeps it" in out
    assert f"tokenizer.json: copied from {folder}" in out
    assert "names the base model openai/gpt-oss-20b, but it is merged into" in error
    out, _ = convert("dense", "--experts", "bf16")
    assert "--experts bf16 keeps it" not in out
    saved = load_file(tmp_path / "dense" / "model.safetensors")[f"{EXPERTS}.down_proj"]
    after, _, _ = merged(open_checkpoint(source), folder)
    for expert in range(4):
        assert torch.equal(saved[expert].T, after[f"{EXPERTS}.down_proj", expert].bfloat16())


def test_the_adapters_folder_is_not_written_to(write_adapter, write_tiny, sizes, capsys) -> None:
    folder, source = write_adapter(GOOD), write_tiny(config=sizes)
    command = ["convert", str(source), "--to", "huggingface", "--overwrite"]
    assert main([*command, "--adapter", str(folder), "--out", str(folder)]) == 1
    assert "is the adapter's folder; choose another folder" in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 2
