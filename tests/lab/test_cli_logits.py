"""`oss-lab logits`: exactly the requested tensors, or one sentence and no file."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import load_model
from oss_lab.cli.main import main


@pytest.fixture
def logits(write_tiny, tmp_path, capsys):
    """`logits.run({"a.json": ids}, "--last", "2")`: status, OUT's tensors or None, stderr lines."""
    folder, out = write_tiny(), tmp_path / "out.safetensors"  # vocab_size 96 matches no vocabulary

    def run(files, *arguments):
        paths = []
        for name, value in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            if value is not None:
                text = value if isinstance(value, bytes) else json.dumps(value).encode()
                path.write_bytes(text)
            paths.append(str(path))
        status = main(["logits", str(folder), "--tokens", *paths, "--out", str(out), *arguments])
        captured = capsys.readouterr()
        assert captured.out == ""
        return status, load_file(out) if out.exists() else None, captured.err.splitlines()

    return SimpleNamespace(run=run, folder=folder, out=out)


def expected(folder, ids, dtype=torch.float32):
    model = load_model(find_checkpoint(folder), dtype=dtype)
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0].float()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_file(logits, dtype):
    status, tensors, errors = logits.run({"a.json": [5, 6, 95]}, "--dtype", dtype)
    assert (status, errors, list(tensors)) == (0, [], ["logits"])
    assert tensors["logits"].dtype == torch.float32
    whole = expected(logits.folder, [5, 6, 95], getattr(torch, dtype))
    assert torch.equal(tensors["logits"], whole)


def test_bfloat16_computes_in_bfloat16(logits):
    _, half, _ = logits.run({"a.json": [5, 6, 95]}, "--dtype", "bfloat16")
    _, full, _ = logits.run({"a.json": [5, 6, 95]})
    assert torch.equal(half["logits"], half["logits"].bfloat16().float())
    assert not torch.equal(half["logits"], full["logits"])


def test_several_files_and_last(logits):
    files = {"a.json": [1], "b.c.json": [1, 2, 3, 4], "other/d": [4, 3, 2]}
    status, tensors, errors = logits.run(files, "--last", "2")
    assert (status, errors) == (0, [])
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {"logits.a": (1, 96), "logits.b.c": (2, 96), "logits.d": (2, 96)}
    whole = expected(logits.folder, [1, 2, 3, 4])
    torch.testing.assert_close(tensors["logits.b.c"], whole[-2:], atol=1e-5, rtol=0)


def test_an_existing_output_is_replaced_and_readable(logits):
    logits.out.write_text("old")
    assert logits.run({"a.json": [1]})[0] == 0
    assert sorted(path.name for path in logits.out.parent.iterdir()) == [
        "a.json",
        "out.safetensors",
        "tiny",
    ]
    if os.name == "posix":
        usual = logits.out.parent / "usual"
        usual.touch()
        assert logits.out.stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([], "the list is empty"),
        ([1, 96], "the list has id 96 at position 1; the vocabulary has ids 0 to 95"),
        ([-1], "id -1 at position 0"),
        ([2**70], f"id {2**70} at position 0"),
        ([1] * 8193, "the list has 8193 tokens; the context is 8192"),
        ([1, True], "expected a list of integers, but item 1 is a bool"),
        ([1, 2.0], "item 1 is a float"),
        ([[1]], "item 0 is a list"),
        ({"tokens": [1]}, "expected a JSON list of token ids, got dict"),
        (b"[1, 2", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'"\xff"', "not UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_is_named_in_one_sentence(logits, value, sentence):
    for files in ({"bad.json": value}, {"good.json": [1], "bad.json": value}):
        status, tensors, (error,) = logits.run(files)
        assert (status, tensors) == (1, None)
        assert "bad.json: " in error
        assert sentence in error
    left = {path.name for path in logits.out.parent.iterdir()}
    assert left <= {"tiny", "good.json", "bad.json"}


def test_two_files_with_one_stem_are_refused(logits):
    status, tensors, (error,) = logits.run({"a.json": [1], "sub/a.json": [2]})
    assert (status, tensors) == (1, None)
    assert "would both become logits.a" in error


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--last", "0"], 1, "--last is 0; it must be"),
        (["--last", "x"], 2, "--last"),
        (["--dtype", "float16"], 2, "--dtype"),
        (["--out", "nowhere/out.safetensors"], 1, "nowhere is not a folder"),
        (["--out", "."], 1, "is a folder"),
    ],
)
def test_other_mistakes(logits, arguments, status, sentence, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found, tensors, (error,) = logits.run({"a.json": [1]}, *arguments)
    assert (found, tensors) == (status, None)
    assert sentence in error


def test_a_failure_keeps_the_existing_output(logits, monkeypatch):
    assert logits.run({"a.json": [1]})[0] == 0
    before = logits.out.read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    status, _, (error,) = logits.run({"a.json": [2]})
    assert status == 1
    assert "No space left" in error
    assert logits.out.read_bytes() == before
    assert {path.name for path in logits.out.parent.iterdir()} == {
        "tiny",
        "a.json",
        logits.out.name,
    }


def test_as_a_program(logits, tmp_path):
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    command = [sys.executable, "-m", "oss_lab", "logits", "--tokens", "a.json", "--out", "o.st"]
    done = subprocess.run([*command, str(logits.folder)], capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (0, b"", 0)
    assert load_file(tmp_path / "o.st")["logits"].shape == (3, 96)
    done = subprocess.run([*command, "nowhere"], capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, b"", 1)
