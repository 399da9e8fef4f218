"""`oss-lab record`: the folder, resuming after a kill, and mistakes in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_NANO
from oss_lab.record.evidence.file import read_evidence


@pytest.fixture
def random_nano(write_tiny, tiny_config):
    """The folder of a checkpoint with random weights and nano's vocabulary."""
    return str(write_tiny(config=replace(tiny_config, vocab_size=GPT_OSS_NANO.vocab_size)))


@pytest.fixture
def prompts(tmp_path):
    """A file of two prompts."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(["What is 1 + 1?", "你好"]))
    return path


@pytest.fixture
def record(random_nano, prompts, tmp_path, capsys):
    """`record(*arguments)`: status, stdout and stderr. Replies have at most 6 tokens."""

    def call(*arguments):
        usual = ("--out", tmp_path / "out", "--prompts", prompts, "--max-tokens", 6)
        status = main(["record", random_nano, *map(str, (*usual, *arguments))])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_a_folder_is_written_and_named(record, tmp_path):
    status, out, err = record("--seed", 3)
    assert (status, err) == (0, "")
    assert out.startswith("6 replies, ")
    assert out.endswith(f"KiB in {tmp_path / 'out'}\n")
    evidence = read_evidence(tmp_path / "out")
    assert [each.question for each in evidence.prompts] == ["What is 1 + 1?", "你好"]
    assert evidence.stamp.model == "tiny"
    assert (evidence.stamp.origin.seed, evidence.stamp.max_tokens) == (3, 6)
    before = (tmp_path / "out" / "evidence.json").stat().st_mtime_ns
    assert record("--seed", 3)[0] == 0
    assert (tmp_path / "out" / "evidence.json").stat().st_mtime_ns == before


def test_dtype_and_kernels_are_stamped(record, tmp_path):
    assert record("--dtype", "bfloat16", "--kernels", "reference")[0] == 0
    origin = read_evidence(tmp_path / "out").stamp.origin
    assert (origin.dtype, origin.kernels) == ("bfloat16", "reference")
    status, _, err = record("--dtype", "float32")
    assert status == 1
    assert "it differs in dtype;" in err


def test_ctrl_c_prints_how_to_resume(record, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("oss_lab.evaluation.record.summarize_reply", stop)
        status, out, err = record()
    assert (status, out) == (130, "")
    assert err == f"stopped; the same command resumes in {tmp_path / 'out'}\n"
    assert record()[0] == 0


def test_a_killed_process_leaves_no_partial_files(random_nano, prompts, tmp_path):
    def arguments(out):
        usual = ("--prompts", str(prompts), "--max-tokens", "80", "--out", str(out))
        return ["record", random_nano, *usual]

    first, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([sys.executable, "-m", "oss_lab", *arguments(first)])
    wanted, late = first / "traces" / "000-medium.safetensors", time.monotonic() + 120
    while not wanted.exists() and time.monotonic() < late:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [main(arguments(out)) for out in (first, whole)] == [0, 0]
    held = []
    for folder in (first, whole):
        files = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}
        evidence = json.loads(files.pop("evidence.json").read_text())
        evidence["stamp"].pop("time")
        held.append((evidence, {name: file.read_bytes() for name, file in files.items()}))
    assert held[0] == held[1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--budget", 0), 1, "--budget is 0; it must be a number above 0"),
        (("--budget", "nan"), 1, "--budget is nan; it must be a number above 0"),
        (("--budget", "inf"), 1, "--budget is inf; it must be a number above 0"),
        (("--budget", "1e-6"), 1, "and the budget is"),
        (("--max-tokens", 0), 1, "--max-tokens is 0; it must be"),
        (("--seed", -1), 1, "--seed is -1; it must be"),
        (("--kernels", "triton"), 1, "triton"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(record, tmp_path, arguments, status, message):
    found, out, err = record(*arguments)
    assert (found, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON list with at least one string"),
        ('{"a": 1}', "expected a JSON list with at least one string"),
        ('["a", 3]', "entry 1 is not a string"),
        ('["a", " "]', "entry 1 is not a string"),
    ],
)
def test_invalid_prompt_files(record, prompts, text, message):
    prompts.write_text(text)
    status, _, err = record()
    assert status == 1
    assert message in err


def test_existing_files_are_kept(record, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "is a file; --out needs a folder" in record()[2]
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert "is not empty and holds no evidence" in record()[2]
    (tmp_path / "out" / "evidence.json").write_text("{}")
    assert "is damaged or was not written by oss-lab" in record()[2]
