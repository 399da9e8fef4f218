"""Each cause is one defect: what "(and N more defects; see --json)" counts."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from oss_lab.checkpoint.dialects import examine_config, huggingface_fields, original_fields
from oss_lab.checkpoint.examine import examine
from oss_lab.checkpoint.layouts import LAYOUTS
from oss_lab.cli.main import main

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
BOTH = {
    "router": {
        "original": "block.1.mlp.gate.bias",
        "huggingface": "model.layers.1.mlp.router.bias",
    },
    "sinks": {"original": "block.1.attn.sinks", "huggingface": "model.layers.1.self_attn.sinks"},
    "norm": {"original": "norm.scale", "huggingface": "model.norm.weight"},
    "scales": {
        "original": "block.0.mlp.mlp1_weight.scales",
        "huggingface": "model.layers.0.mlp.experts.gate_up_proj_scales",
    },
}


def set_field(folder, name, value):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {name: value}))


def set_tensor(folder, name, change):
    tensors = load_file(folder / MODEL)
    tensor = change(tensors.pop(name, None))
    save_file(tensors if tensor is None else {**tensors, name: tensor}, folder / MODEL)


def with_nan(scales):
    scales[0, 0, 0] = 255
    return scales


def cut(folder):
    file = folder / MODEL
    file.write_bytes(file.read_bytes()[:-1])


CAUSES = {
    "unknown field": lambda folder, names: set_field(folder, "qk_norm", True),
    "epsilon": lambda folder, names: set_field(folder, "rms_norm_eps", "small"),
    "window": lambda folder, names: set_field(folder, "sliding_window", 0),
    "layer type": lambda folder, names: set_field(folder, "layer_types", ["full_attention", "x"]),
    "missing": lambda folder, names: set_tensor(folder, names["sinks"], lambda _: None),
    "unknown": lambda folder, names: set_tensor(folder, "extra", lambda _: torch.zeros(1)),
    "dtype": lambda folder, names: set_tensor(folder, names["norm"], lambda t: t.float()),
    "shape": lambda folder, names: set_tensor(folder, names["router"], lambda t: t[:-1].clone()),
    "scale": lambda folder, names: set_tensor(folder, names["scales"], with_nan),
    "truncated": lambda folder, names: cut(folder),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_two_causes_are_two_defects(write_tiny, capsys, layout):
    """Every other pair in one layout, the rest in the other."""
    names = {name: both[layout] for name, both in BOTH.items()}
    pairs = list(itertools.combinations(CAUSES, 2))
    for pair in pairs[LAYOUTS.index(layout) :: len(LAYOUTS)]:
        folder = write_tiny(layout, "-".join(pair).replace(" ", ""))
        for cause in pair:
            CAUSES[cause](folder, names)
        assert main(["inspect", str(folder)]) == 1
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert line.endswith(" (and 1 more defect; see --json)\n"), (pair, line)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_cause_is_one_defect(write_tiny, layout, cause):
    folder = write_tiny(layout)
    CAUSES[cause](folder, {name: both[layout] for name, both in BOTH.items()})
    assert len(examine(folder).defects) == 1


@pytest.mark.parametrize("kept", [5, 100, -1])
def test_a_truncated_shard_is_not_also_reported_to_lack_its_tensors(write_tiny, kept):
    folder = write_tiny("huggingface", max_shard_bytes=20_000)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:kept])
    [defect] = examine(folder).defects
    assert (defect.kind, defect.file) == ("file", shard.name)


def test_an_index_that_names_an_absent_file_is_one_defect(write_tiny):
    folder = write_tiny("huggingface", max_shard_bytes=20_000)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "absent.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    [defect] = examine(folder).defects
    assert (defect.kind, defect.file) == ("shard", "absent.safetensors")


def test_an_unusable_size_is_not_also_reported_for_each_tensor(write_tiny):
    folder = write_tiny("original")
    for name, value in (("hidden_size", "64"), ("num_experts", 1)):
        before = (folder / "config.json").read_text()
        set_field(folder, name, value)
        assert {defect.kind for defect in examine(folder).defects} == {"config"}
        (folder / "config.json").write_text(before)


@pytest.mark.parametrize("spell", [original_fields, huggingface_fields])
def test_contradictions_are_reported_with_other_problems(tiny_config, spell):
    fields = spell(tiny_config) | {"hidden_size": 65, "rms_norm_eps": None, "qk_norm": True}
    names = [problem.field for problem in examine_config(fields)[1]]
    assert names == ["rms_norm_eps", "qk_norm", "hidden_size"]


def test_a_long_name_without_spaces_is_still_named(write_tiny):
    folder = write_tiny("original")
    set_tensor(folder, "extra" + "x" * 500, lambda _: torch.zeros(1))
    [defect] = examine(folder).defects
    assert "tensor extraxxx" in defect.sentence
    assert len(defect.sentence) < 300
