"""`oss-lab inspect` and `convert`, as used by people and by other programs."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from oss_lab.checkpoint.plan import checkpoint_bytes, count_parameters
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.cli.convert import parse_size
from oss_lab.cli.main import main
from oss_lab.config import MODELS

MODEL = "model.safetensors"


def break_three_ways(folder):
    """Introduce three defects: norm.scale missing, one unknown tensor, one NaN scale."""
    tensors = load_file(folder / MODEL)
    del tensors["norm.scale"]
    tensors["extra"] = torch.zeros(1)
    tensors["block.0.mlp.mlp1_weight.scales"][0, 0, 0] = 255
    save_file(tensors, folder / MODEL)
    return folder


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text[:-1]


@pytest.mark.parametrize("name", MODELS)
def test_name_needs_no_weights(capsys, name):
    assert main(["inspect", name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    counted = count_parameters(MODELS[name])
    for part in ("mlp", "attention", "embedding", "active", "total"):
        assert shown["parameters"][part] == getattr(counted, part)
    assert shown["checkpoint_bytes"] == checkpoint_bytes(MODELS[name])
    assert shown["config"]["hidden_size"] == MODELS[name].hidden_size
    assert shown["defects"] == []


def test_published_numbers_in_text(capsys):
    assert main(["inspect", "120b"]) == 0
    printed = capsys.readouterr().out
    for number in ("114,714,874,368", "955,805,184", "1,158,266,880", "116,829,156,672"):
        assert number in printed
    for number in ("5,132,849,472", "65,248,815,744", "4.50 GiB", "[128, 5760, 90, 16]"):
        assert number in printed


@pytest.mark.parametrize("layout", ["original", "huggingface"])
def test_intact_folder(write_tiny, capsys, layout):
    folder = write_tiny(layout, max_shard_bytes=40_000)
    assert main(["inspect", str(folder)]) == 0
    assert "3 files, no defects" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["layout"] == layout
    assert len(shown["tensors"]) == shown["tensor_count"][layout]
    assert {tensor["file"] for tensor in shown["tensors"]} == {
        file.name for file in folder.glob("*.safetensors")
    }


def test_defective_folder_is_one_line(write_tiny, capsys):
    folder = break_three_ways(write_tiny())
    assert main(["inspect", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    sentence = (
        f"oss-lab: tensor norm.scale is missing from {MODEL} (and 2 more defects; see --json)"
    )
    assert one_line(captured.err) == sentence


def test_defective_folder_as_json(write_tiny, capsys):
    folder = break_three_ways(write_tiny())
    assert main(["inspect", str(folder), "--json"]) == 1
    captured = capsys.readouterr()
    one_line(captured.err)
    found = json.loads(captured.out)["defects"]
    assert [(defect["kind"], defect["tensor"]) for defect in found] == [
        ("missing", "norm.scale"),
        ("unknown", "extra"),
        ("scale", "block.0.mlp.mlp1_weight.scales"),
    ]


def test_a_single_defect_has_no_count_of_others(write_tiny, capsys):
    folder = write_tiny()
    (folder / "config.json").write_text("{")
    assert main(["inspect", str(folder)]) == 1
    assert "more" not in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "20b", "--jsn"], ["convert", "."]])
def test_usage_error_is_one_line(capsys, arguments):
    assert main(arguments) == 2
    one_line(capsys.readouterr().err)


def test_absent_folder(capsys, tmp_path):
    assert main(["inspect", str(tmp_path / "20c")]) == 1
    sentence = (
        f"oss-lab: {tmp_path / '20c'} does not exist; use nano, 20b, 120b or a checkpoint folder"
    )
    assert one_line(capsys.readouterr().err) == sentence


def test_inspecting_is_fast_and_does_not_import_torch(write_tiny):
    code = (
        "import sys; from oss_lab.cli.main import main; "
        f"status = main(['inspect', {str(write_tiny())!r}]); "
        "sys.exit(status or 'torch' in sys.modules)"
    )
    before = os.times()  # CPU time, because other processes may be busy
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    after = os.times()
    assert (done.returncode, done.stderr) == (0, b"")
    system = after.children_system - before.children_system
    assert after.children_user - before.children_user + system < 1.0


def test_convert_there_and_back(write_tiny, capsys, tmp_path):
    first = write_tiny("original")
    there, back = tmp_path / "there", tmp_path / "back"
    limit = ["--max-shard-size", "40kB"]
    assert main(["convert", str(first), "--to", "huggingface", "--out", str(there), *limit]) == 0
    assert one_line(capsys.readouterr().out).startswith(f"wrote {there} in the Hugging Face layout")
    assert open_checkpoint(there).layout == "huggingface"
    assert len(list(there.glob("*.safetensors"))) == 3
    assert main(["convert", str(there), "--to", "original", "--out", str(back)]) == 0
    for file in first.iterdir():
        assert (back / file.name).read_bytes() == file.read_bytes()


def test_convert_keeps_the_tokenizer_of_a_huggingface_folder(write_tiny, tmp_path):
    source = write_tiny("huggingface")
    (source / "tokenizer.json").write_text("{}")
    (source / "pytorch_model.bin").write_text("not copied")
    out = tmp_path / "out"
    assert main(["convert", str(source), "--to", "huggingface", "--out", str(out)]) == 0
    names = ["config.json", MODEL, "tokenizer.json"]
    assert sorted(file.name for file in out.iterdir()) == names


def test_convert_refuses_in_one_line(write_tiny, capsys, tmp_path, monkeypatch):
    source = write_tiny("original")
    other = write_tiny("original", "other")

    def is_refused(model, out, *options):
        assert main(["convert", str(model), "--to", "original", "--out", str(out), *options]) != 0
        captured = capsys.readouterr()
        assert captured.out == ""
        return one_line(captured.err)

    assert "is the source folder" in is_refused(source, source, "--overwrite")
    assert "already contains config.json" in is_refused(source, other)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "gpt-oss-20b is not on this machine" in is_refused("20b", tmp_path / "new")
    assert "is not a size such as" in is_refused(
        source, tmp_path / "new", "--max-shard-size", "big"
    )
    assert "norm.scale is missing" in is_refused(break_three_ways(other), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4.8GB", 4_800_000_000),
        ("500MiB", 500 * 2**20),
        ("12", 12),
        ("1 kb", 1000),
        ("0.29KB", 290),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


def test_a_size_beyond_float_range_means_no_limit():
    assert parse_size("9" * 400) > 10**390
