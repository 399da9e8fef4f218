"""`oss-lab fake`: random checkpoints with the true shapes, for every other command."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import oss_lab
from oss_lab.checkpoint import fake
from oss_lab.checkpoint.examine import examine
from oss_lab.checkpoint.fake import read_fake_mark, write_fake, write_random
from oss_lab.checkpoint.layouts import LAYOUTS, tensor_table
from oss_lab.checkpoint.plan import checkpoint_bytes
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO, MODELS
from oss_lab.errors import CheckpointError

both_layouts = pytest.mark.parametrize("layout", LAYOUTS)


def run(capsys, *arguments) -> str:
    """The output of a command that succeeds."""
    assert main([str(each) for each in arguments]) == 0
    return capsys.readouterr().out


@both_layouts
def test_every_command_takes_a_fake(layout, tmp_path, capsys):
    folder, other = tmp_path / "fake", tmp_path / "other"
    wrote = run(capsys, "fake", "nano", folder, "--layout", layout, "--layers", 2)
    assert wrote.startswith(f"wrote random weights for nano to {folder} in the ")
    mark = "fake: random weights in the shapes of nano, 2 layers, seed 0"
    assert mark in run(capsys, "inspect", folder)
    assert json.loads(run(capsys, "inspect", folder, "--json"))["fake"] in mark
    ids = tmp_path / "ids.json"
    ids.write_text("[1, 2, 3]")
    run(capsys, "logits", folder, "--tokens", ids, "--out", tmp_path / "logits.safetensors")
    run(capsys, "generate", "hi", "--model", folder, "--max-tokens", 3)
    run(
        capsys,
        "trace",
        folder,
        "--prompt",
        "hi",
        "--points",
        "resid.post",
        "--out",
        tmp_path / "run",
    )
    back = "original" if layout == "huggingface" else "huggingface"
    run(capsys, "convert", folder, "--to", back, "--out", other)
    assert mark in run(capsys, "inspect", other)  # a copy is still marked


def test_the_mark_survives_other_storage_and_a_merge(tmp_path, capsys):
    run(capsys, "fake", "nano", tmp_path / "fake", "--layout", "huggingface", "--layers", 1)
    for source, option, out in (("fake", "bf16", "dense"), ("dense", "mxfp4", "packed")):
        to = ["--to", "huggingface", "--out", tmp_path / out, "--overwrite", "--experts", option]
        run(capsys, "convert", tmp_path / source, *to)
        assert "fake: random weights" in run(capsys, "inspect", tmp_path / out)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    factor = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    factors = {factor.format("A"): torch.ones(1, 96), factor.format("B"): torch.ones(128, 1)}
    save_file(factors, adapter / "adapter_model.safetensors")
    to = ["--to", "huggingface", "--out", tmp_path / "merged", "--adapter", adapter]
    run(capsys, "convert", tmp_path / "fake", *to)
    assert "fake: random weights" in run(capsys, "inspect", tmp_path / "merged")


def test_a_real_checkpoint_has_no_mark(capsys):
    assert read_fake_mark(open_checkpoint("nano")) is None
    assert json.loads(run(capsys, "inspect", "20b", "--json"))["fake"] is None


def test_load_says_that_the_weights_are_random(tmp_path, capsys):
    write_fake("nano", tmp_path / "fake", layers=1)
    oss_lab.load(tmp_path / "fake")
    assert "is fake: random weights in the shapes of nano" in capsys.readouterr().err


def test_logits_are_finite_and_spread(tmp_path):
    write_fake("nano", tmp_path / "fake", seed=3)
    lab = oss_lab.load(tmp_path / "fake", verbose=False)
    trace = lab.trace(torch.arange(1, 65).tolist(), ["out.logits", "moe.expert_ids"])
    logits = torch.as_tensor(trace["out.logits"].values)
    assert logits.isfinite().all()
    assert 0.5 < logits.std() < 2
    assert len(logits.argmax(-1).unique()) > 16
    experts = torch.as_tensor(trace["moe.expert_ids"].values)
    assert len(experts.unique()) == GPT_OSS_NANO.num_experts


def test_both_layouts_have_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "CHUNK", 1000)  # chunks end inside q, k and v
    for layout in LAYOUTS:
        write_fake("nano", tmp_path / layout, layout=layout, layers=1, seed=5)
    original, other = (dict(open_checkpoint(tmp_path / each).tensors()) for each in LAYOUTS)
    for name, tensor in original.items():
        assert torch.equal(tensor, other[name]), name


def test_seeds(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_fake("nano", tmp_path / name, layers=1, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_tensors_of_one_checkpoint_differ(tmp_path):
    write_fake("nano", tmp_path / "fake")
    tensors = dict(open_checkpoint(tmp_path / "fake").tensors())
    first, second = (tensors[f"block.{n}.mlp.mlp1_weight.blocks"] for n in (0, 1))
    assert (first == second).float().mean() < 0.01
    assert not torch.equal(tensors["embedding.weight"], tensors["unembedding.weight"])


def test_shards_and_index(tmp_path, tiny_config):
    folder = tmp_path / "fake"
    files = write_random(tiny_config, folder, "test", "huggingface", 40_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == checkpoint_bytes(tiny_config)
    assert {file.name for file in files} >= set(index["weight_map"].values())
    assert len(set(index["weight_map"].values())) > 1
    assert examine(folder).defects == []


@pytest.mark.parametrize(
    ("name", "layout", "count"),
    [
        ("20b", "original", 1),
        ("120b", "original", 7),
        ("20b", "huggingface", 3),
        ("120b", "huggingface", 15),
    ],
)
def test_as_many_files_as_published(name, layout, count, tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr("oss_lab.checkpoint.write.check_space", lambda *_: None)
    monkeypatch.setattr(
        "oss_lab.checkpoint.write.TensorFiles", lambda *given: kept.update(given[1])
    )
    with pytest.raises(TypeError):  # nothing is written
        write_fake(name, tmp_path / "fake", layout=layout)
    assert len(kept) == count
    assert sum(t.nbytes for file in kept.values() for t in file) == checkpoint_bytes(MODELS[name])


def test_an_existing_folder_is_refused(tmp_path, capsys):
    folder = tmp_path / "fake"
    folder.mkdir()
    assert main(["fake", "nano", str(folder), "--layers", "1"]) == 0
    (folder / "notes.txt").write_text("keep")
    before = (folder / "model.safetensors").read_bytes()
    assert main(["fake", "nano", str(folder), "--seed", "1"]) == 1
    assert f"{folder} is not empty" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before
    assert main(["fake", "nano", str(folder), "--seed", "1", "--overwrite"]) == 0
    assert (folder / "model.safetensors").read_bytes() != before
    assert (folder / "notes.txt").read_text() == "keep"
    assert main(["fake", "nano", str(folder / "notes.txt")]) == 1
    assert "is a file; OUT needs a folder" in capsys.readouterr().err


def test_disk_space_is_checked_first(tmp_path, capsys, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    assert main(["fake", "20b", str(tmp_path / "fake")]) == 1
    sentence = capsys.readouterr().err
    assert sentence.endswith("12.8 GiB needed, 1.0 GiB free\n")
    assert sentence.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_fake_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "draw_rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_fake("nano", tmp_path / "fake")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layers", ["0", "1001", "x"])
def test_layers_out_of_range(layers, tmp_path, capsys):
    assert main(["fake", "20b", str(tmp_path / "fake"), "--layers", layers]) != 0
    assert "layers" in capsys.readouterr().err


def test_wrong_arguments_in_python(tmp_path):
    with pytest.raises(CheckpointError, match="layers is 0; it must be 1 or more"):
        write_fake("20b", tmp_path / "fake", layers=0)
    with pytest.raises(CheckpointError, match="'21b' is not a model; use one of 20b, 120b, nano"):
        write_fake("21b", tmp_path / "fake")
    assert list(tmp_path.iterdir()) == []


def test_draws_have_the_scale_of_their_role():
    config = replace(GPT_OSS_NANO, hidden_size=256, intermediate_size=256)
    for spec in tensor_table(config):
        values = fake.draw_rows(spec, 0, spec.shape[0], 0)
        if spec.role == "norm":
            assert abs(values.float().mean() - 1) < 0.1
        elif spec.role == "unembedding":
            assert values.float().std() == pytest.approx(256**-0.5, rel=0.02)
        elif spec.role == "expert scales":
            assert values.unique().tolist() == [121, 122]  # an RMS of 0.07, about 256^-0.5


def test_memory_is_bounded_by_chunks_not_by_tensors(tmp_path):
    """Write two tensors of 25 MB in small chunks: the peak grows by far less."""
    code = (
        "import resource, sys, torch; from dataclasses import replace;"
        "from oss_lab.checkpoint import fake; from oss_lab.config import GPT_OSS_NANO;"
        "fake.CHUNK = 2**16; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "wide = replace(GPT_OSS_NANO, num_hidden_layers=1, layer_types=(), vocab_size=2**17);"
        "fake.write_random(GPT_OSS_NANO, sys.argv[1] + '/warm', 'x', 'original');"
        "before = peak(); fake.write_random(wide, sys.argv[1] + '/wide', 'x', 'original');"
        "print(peak() - before)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    assert int(done.stdout) * unit < 12e6


@pytest.mark.slow
def test_one_layer_of_20b(tmp_path, capsys):
    folder = tmp_path / "fake"
    try:
        run(capsys, "fake", "20b", folder, "--layers", 1)
        checkpoint = open_checkpoint(folder)
        size = (folder / "model.safetensors").stat().st_size
        assert 0 < size - checkpoint_bytes(checkpoint.config) < 10_000
        ids = tmp_path / "ids.json"
        ids.write_text("[1, 2, 3, 4]")
        out = tmp_path / "logits.safetensors"
        run(capsys, "logits", folder, "--tokens", ids, "--out", out)
        [logits] = load_file(out).values()
        assert logits.shape[-1] == GPT_OSS_20B.vocab_size
        assert 0.5 < logits.float().std() < 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
