"""Writing and reading back changes no byte, in either layout, in one file or in shards."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oss_kernels import mxfp4
from safetensors.torch import load_file

from oss_lab.checkpoint import write
from oss_lab.checkpoint.header import read_header
from oss_lab.checkpoint.layouts import LAYOUTS, Layout, stored_table
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.config import GPT_OSS_NANO
from oss_lab.errors import CheckpointError


def read_folder(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("shard", [None, 9000, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_read(write_tiny, tiny_config, layout, shard):
    checkpoint = open_checkpoint(write_tiny(layout, max_shard_bytes=shard))
    assert checkpoint.config == tiny_config
    assert checkpoint.layout == layout
    written, read = random_tensors(tiny_config), dict(checkpoint.tensors())
    assert list(read) == list(written)
    for name, tensor in written.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def test_unusual_configuration_survives_both_layouts(write_tiny, tiny_config):
    config = replace(
        tiny_config,
        layer_types=("full_attention", "full_attention"),
        rms_norm_eps=1e-3,
        swiglu_alpha=1.5,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=10,
        rope_theta=1000.5,
    )
    for layout in LAYOUTS:
        assert open_checkpoint(write_tiny(layout, layout, config)).config == config


def test_original_to_huggingface_and_back_is_identical(write_tiny, tmp_path):
    first = write_tiny("original")
    folder = first
    steps: list[tuple[Layout, int | None]] = [
        ("huggingface", 5000),
        ("huggingface", None),
        ("original", None),
    ]
    for layout, shard in steps:
        checkpoint = open_checkpoint(folder)
        folder = tmp_path / f"{layout}-{shard}"
        tensors = dict(checkpoint.tensors())
        write_checkpoint(folder, checkpoint.config, tensors, layout=layout, max_shard_bytes=shard)
    assert read_folder(folder) == read_folder(first)
    assert sorted(read_folder(first)) == ["config.json", "dtypes.json", "model.safetensors"]


def test_original_shards_have_a_double_dash_and_no_index(write_tiny):
    folder = write_tiny("original", max_shard_bytes=40_000)
    names = sorted(file.name for file in folder.iterdir())
    assert names == [
        "config.json",
        "dtypes.json",
        *(f"model--{n:05}-of-00003.safetensors" for n in (1, 2, 3)),
    ]
    dtypes = json.loads((folder / "dtypes.json").read_text())
    assert dtypes["block.1.mlp.mlp1_weight.blocks"] == "FP4"
    assert dtypes["block.1.mlp.mlp1_weight.scales"] == "UE8"
    assert dtypes["block.1.attn.sinks"] == "BF16"
    assert len(dtypes) == 15 * 2 + 3


def test_huggingface_shards_have_an_index(write_tiny, tiny_config):
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    stored = list(stored_table(tiny_config, "huggingface"))
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored)
    assert set(index["weight_map"]) == {tensor.name for tensor in stored}
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    assert names == [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]
    assert set(index["weight_map"].values()) == set(names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shards_stay_within_their_size(write_tiny, layout):
    folder = write_tiny(layout, max_shard_bytes=13_000)
    sizes = []
    for file in folder.glob("*.safetensors"):
        tensors = read_header(file).values()
        sizes.append(sum(tensor.end - tensor.start for tensor in tensors))
        assert sizes[-1] <= 13_000 or len(tensors) == 1
    assert len(sizes) > 3


def test_published_huggingface_shards_count_from_zero(write_tiny):
    """20b's three files are 00000-of-00002 to 00002-of-00002. They are read with or without an
    index."""
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    index = folder / "model.safetensors.index.json"
    text = index.read_text()
    for number in (1, 2, 3):
        old = f"model-{number:05}-of-00003.safetensors"
        new = f"model-{number - 1:05}-of-00002.safetensors"
        (folder / old).rename(folder / new)
        text = text.replace(old, new)
    index.write_text(text)
    assert len(open_checkpoint(folder).located) == 19 * 2 + 3
    index.unlink()
    assert len(open_checkpoint(folder).located) == 19 * 2 + 3


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is Linux's")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_are_mapped_not_copied(write_tiny, layout):
    folder = write_tiny(layout)
    tensors = dict(open_checkpoint(folder).tensors())
    maps = Path("/proc/self/maps").read_text().splitlines()
    ours = [line.split()[0].split("-") for line in maps if str(folder) in line]
    spans = [(int(start, 16), int(end, 16)) for start, end in ours]
    for name in ("embedding.weight", "block.1.mlp.mlp1_weight.blocks", "block.1.mlp.gate.weight"):
        place = tensors[name].data_ptr()
        assert any(start <= place < end for start, end in spans), name


def test_shipped_nano_matches_its_configuration():
    checkpoint = open_checkpoint("nano")
    assert checkpoint.config == GPT_OSS_NANO
    assert checkpoint.layout == "original"


def test_each_layout_in_a_shared_folder_reads_its_own_files(write_tiny):
    root = write_tiny("huggingface")
    inner = write_tiny("original", "tiny/original")
    assert open_checkpoint(root).folder == root
    assert open_checkpoint(inner).layout == "original"
    (root / "model.safetensors").unlink()
    checkpoint = open_checkpoint(root)
    assert (checkpoint.folder, checkpoint.layout) == (inner, "original")


def test_an_existing_checkpoint_is_kept_unless_overwriting_is_requested(write_tiny, tiny_config):
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    (folder / "notes.txt").write_text("mine")
    before = read_folder(folder)
    tensors = random_tensors(tiny_config, seed=1)
    with pytest.raises(CheckpointError, match=r"already contains config\.json"):
        write_checkpoint(folder, tiny_config, tensors)
    assert read_folder(folder) == before
    write_checkpoint(folder, tiny_config, tensors, overwrite=True)
    names = ["config.json", "dtypes.json", "model.safetensors", "notes.txt"]
    assert sorted(read_folder(folder)) == names
    read = dict(open_checkpoint(folder).tensors())
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_weights_have_the_permissions_of_the_configuration(write_tiny):
    modes = {file.stat().st_mode for file in write_tiny().iterdir()}
    assert len(modes) == 1


def test_a_failed_write_keeps_the_old_checkpoint(write_tiny, tiny_config, monkeypatch, tmp_path):
    folder = write_tiny("original")
    before = read_folder(folder)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_write_json", fail)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(target, tiny_config, random_tensors(tiny_config), overwrite=True)
    assert read_folder(folder) == before
    assert not (tmp_path / "new").exists()


def test_full_disk_is_noticed_before_writing(tiny_config, monkeypatch, tmp_path):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(write.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(CheckpointError, match=r"0\.0 GiB needed, 0\.0 GiB free"):
        write_checkpoint(tmp_path / "new", tiny_config, random_tensors(tiny_config))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("norm.scale", None, "norm.scale is missing"),
        ("norm.scale", torch.zeros(64), "norm.scale is torch.float32, not torch.bfloat16"),
        ("norm.scale", torch.zeros(65).bfloat16(), r"norm.scale has shape \[65\], not \[64\]"),
        ("block.2.attn.sinks", torch.zeros(4).bfloat16(), "block.2.attn.sinks does not belong to"),
    ],
)
def test_wrong_tensors_are_not_written(tiny_config, tmp_path, name, tensor, sentence):
    tensors = random_tensors(tiny_config) | {name: tensor}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=sentence):
        write_checkpoint(tmp_path / "new", tiny_config, tensors)
    assert not (tmp_path / "new").exists()


def test_wrong_configuration_is_not_written(tiny_config, tmp_path):
    config = replace(tiny_config, experts_per_token=5)
    with pytest.raises(CheckpointError, match="experts_per_token is 5, more than"):
        write_checkpoint(tmp_path / "new", config, random_tensors(tiny_config))


def test_transformers_has_the_same_names_and_shapes(tiny_config, tmp_path):
    transformers = pytest.importorskip("transformers")
    from oss_lab.checkpoint.dialects import huggingface_fields

    fields = huggingface_fields(tiny_config)
    del fields["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(tmp_path)
        model = transformers.GptOssForCausalLM(config)
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    ours = {}
    for stored in stored_table(tiny_config, "huggingface"):
        if stored.name.endswith(
            "_blocks"
        ):  # 32 numbers per block; transformers computes x @ W, so it is transposed
            experts, rows, groups, _ = stored.shape
            ours[stored.name.removesuffix("_blocks")] = (experts, groups * 32, rows)
        elif not stored.name.endswith("_scales"):
            ours[stored.name] = stored.shape
    assert ours == theirs


@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_the_same_numbers(write_tiny, tiny_config):
    transformers = pytest.importorskip("transformers")
    folder = write_tiny("huggingface", max_shard_bytes=40_000)
    model = transformers.GptOssForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
    )
    theirs = model.state_dict()
    tensors = random_tensors(tiny_config)
    qkv = tensors["block.1.attn.qkv.weight"].split([64, 32, 32])
    for name, rows in zip("qkv", qkv, strict=True):
        assert torch.equal(theirs[f"model.layers.1.self_attn.{name}_proj.weight"], rows)
    for ours, name in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj")):
        packed = f"block.1.mlp.{ours}_weight"
        weight = mxfp4.dequantize(tensors[f"{packed}.blocks"], tensors[f"{packed}.scales"])
        stored = theirs[f"model.layers.1.mlp.experts.{name}"]
        assert torch.equal(stored.float(), weight.transpose(1, 2))
    assert torch.equal(theirs["lm_head.weight"], tensors["unembedding.weight"])
    assert torch.equal(theirs["model.layers.0.mlp.router.bias"], tensors["block.0.mlp.gate.bias"])


def test_safetensors_itself_reads_the_file(write_tiny, tiny_config):
    loaded = load_file(write_tiny("original") / "model.safetensors")
    for name, tensor in random_tensors(tiny_config).items():
        assert torch.equal(loaded[name], tensor)


def test_a_folder_at_the_target_is_refused_before_anything_is_removed(write_tiny, tiny_config):
    folder = write_tiny()
    (folder / "x.safetensors").mkdir()
    before = (folder / "config.json").read_bytes()
    tensors = dict(open_checkpoint(write_tiny(name="other")).tensors())
    with pytest.raises(CheckpointError, match=r"x\.safetensors is a folder and cannot be replaced"):
        write_checkpoint(folder, tiny_config, tensors, layout="huggingface", overwrite=True)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="names of arbitrary bytes are Linux's")
def test_a_path_that_the_library_cannot_open_is_refused_in_one_sentence(write_tiny, tiny_config):
    folder = write_tiny()
    tensors = dict(open_checkpoint(folder).tensors())
    renamed = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    with pytest.raises(CheckpointError, match="is not valid UTF-8"):
        next(open_checkpoint(renamed).tensors())
    with pytest.raises(CheckpointError, match="is not valid UTF-8"):
        write_checkpoint(renamed, tiny_config, tensors, overwrite=True)
