"""NaN and infinity in any tensor of a checkpoint: `inspect --deep` finds them, and a generation
ends with one sentence instead of an answer."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from oss_lab.checkpoint.layouts import LAYOUTS, stored_table, tensor_table
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.rewrite import rewrite_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_NANO

MODEL = "model.safetensors"
FLOATS = [s.name for s in tensor_table(GPT_OSS_NANO) if s.dtype == "BF16"]
# One tensor of every kind; the layers have the same kinds.
KINDS = [name for name in FLOATS if not name.startswith("block.") or name.startswith("block.1.")]


@pytest.fixture(scope="module")
def nano_tensors():
    return {name: tensor.clone() for name, tensor in open_checkpoint("nano").tensors()}


@pytest.fixture
def write_broken(nano_tensors, tmp_path):
    """`write_broken(name, value)`: nano with this value all over one tensor."""

    def write(name, value):
        broken = {name: torch.full_like(nano_tensors[name], value)}
        write_checkpoint(tmp_path / "broken", GPT_OSS_NANO, nano_tensors | broken)
        return tmp_path / "broken"

    return write


def fails(capsys, *command):
    capsys.readouterr()
    assert main(list(map(str, command))) == 1
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("oss-lab: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_generation_with_nan_weights_ends_in_one_sentence(write_broken, name, capsys):
    folder = write_broken(name, math.nan)
    sentence = fails(capsys, "generate", "What is 3 * 4?", "--model", folder, "--max-tokens", 3)
    assert sentence == ("oss-lab: the logits contain NaN; the weights or an intervention caused it")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_not_written(write_broken, value, capsys, tmp_path):
    folder, out = write_broken("norm.scale", value), tmp_path / "logits.safetensors"
    (ids := tmp_path / "ids.json").write_text("[1, 2, 3]")
    sentence = fails(capsys, "logits", folder, "--tokens", ids, "--out", out)
    assert sentence.endswith("ids.json: the logits contain NaN or infinity; the weights caused it")
    assert not out.exists()


@pytest.mark.parametrize("name", KINDS)
def test_deep_inspection_finds_every_tensor(write_broken, name, capsys):
    folder = write_broken(name, math.inf)
    count = open_checkpoint(folder).located[name]
    index = [0] * len(count.shape)
    sentence = fails(capsys, "inspect", folder, "--deep")
    number = f"{math.prod(count.shape):,}"
    assert sentence == (
        f"oss-lab: tensor {name} in {MODEL} contains {number} infinite values, the first at index"
        f" {index}"
    )
    assert main(["inspect", str(folder)]) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_deep_inspection_counts_and_locates(write_tiny, layout, tiny_config, capsys):
    folder = write_tiny(layout)
    name = next(
        stored.name
        for stored in stored_table(tiny_config, layout)
        if stored.name.endswith(("mlp1_bias", "gate_up_proj_bias"))
    )
    tensors = load_file(folder / MODEL)
    tensors[name][2, 7], tensors[name][3, 0], tensors[name][3, 1] = math.nan, -math.inf, math.inf
    save_file(tensors, folder / MODEL, {"format": "pt"})
    assert main(["inspect", str(folder), "--deep", "--json"]) == 1
    [defect] = json.loads(capsys.readouterr().out)["defects"]
    assert defect["kind"] == "value"
    assert defect["tensor"] == name
    assert defect["sentence"] == (
        f"tensor {name} in {MODEL} contains 1 NaN and 2 infinite values, the first at index [2, 7]"
    )


def test_deep_inspection_of_dense_experts(write_tiny, tmp_path, capsys):
    checkpoint = open_checkpoint(write_tiny("huggingface"))
    rewrite_checkpoint(checkpoint, tmp_path / "dense", layout="huggingface", experts="bf16")
    name = "model.layers.1.mlp.experts.down_proj"
    tensors = load_file(tmp_path / "dense" / MODEL)
    tensors[name][3, 31, 5] = math.nan
    save_file(tensors, tmp_path / "dense" / MODEL, {"format": "pt"})
    sentence = fails(capsys, "inspect", tmp_path / "dense", "--deep")
    assert f"{name} in {MODEL} contains 1 NaN values, the first at index [3, 31, 5]" in sentence
    command = ("convert", tmp_path / "dense", "--to", "original", "--out", tmp_path / "out")
    sentence = fails(capsys, *command, "--experts", "mxfp4")
    assert f"tensor {name} of expert 3 contains NaN or infinity" in sentence


@pytest.mark.parametrize(("scale", "code", "is_infinite"), [(253, 6, True), (253, 5, False),
    (254, 4, True), (254, 3, False), (252, 7, False)])  # fmt: skip
def test_deep_inspection_of_scales_beyond_the_range(write_tiny, scale, code, is_infinite, capsys):
    folder = write_tiny("original")
    name = "block.0.mlp.mlp2_weight"
    tensors = load_file(folder / MODEL)
    tensors[f"{name}.scales"][1, 2, 0] = scale
    tensors[f"{name}.blocks"][1, 2, 0] = 0
    tensors[f"{name}.blocks"][1, 2, 0, 9] = 8 + code << 4  # the odd weight, negative
    save_file(tensors, folder / MODEL, {"format": "pt"})
    if is_infinite:
        sentence = fails(capsys, "inspect", folder, "--deep")
        assert "contains 1 infinite blocks, the first at index [1, 2, 0]" in sentence
    else:
        assert main(["inspect", str(folder), "--deep"]) == 0


def test_nan_scales_are_found_without_deep(write_tiny, capsys):
    folder = write_tiny("original")
    tensors = load_file(folder / MODEL)
    tensors["block.0.mlp.mlp1_weight.scales"][1, 2, 1] = 255
    save_file(tensors, folder / MODEL, {"format": "pt"})
    for command in (["inspect", folder], ["inspect", folder, "--deep"]):
        assert "contains 1 NaN scale bytes (255)" in fails(capsys, *command)
    assert "NaN scale bytes" in fails(capsys, "generate", "x", "--model", folder)


def test_deep_inspection_needs_weights_and_accepts_nano(capsys):
    assert "--deep reads weights: expected a checkpoint folder" in fails(
        capsys, "inspect", "20b", "--deep"
    )
    assert main(["inspect", "nano", "--deep"]) == 0
    assert "no defects" in capsys.readouterr().out
