"""Standard input, closed pipes, replaced files, and progress without a terminal."""

import io
import json
import os
import re
import subprocess
import sys
import time

import pytest

from oss_lab import progress
from oss_lab.cli.main import main
from oss_lab.errors import LabError

ANSWER = "<|channel|>final<|message|>42<|return|>"


@pytest.fixture
def generate(reciting_lab, monkeypatch, capsys):
    """`generate(stdin, *arguments)`: status, stdout, stderr and what the model read."""

    def run(typed, *arguments, script=ANSWER):
        lab = reciting_lab(script)
        monkeypatch.setattr("oss_lab.lab.load", lambda *_, **__: lab)
        monkeypatch.setattr("sys.stdin", None if typed is None else io.StringIO(typed))
        status = main(["generate", *arguments])
        read = lab.tokenizer.decode(lab.model.prompts[0]) if lab.model.prompts else ""
        return status, *capsys.readouterr(), read

    return run


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_d8_the_question_is_read_from_a_pipe(generate, arguments):
    status, out, err, read = generate("What is\n6 * 7?\n", *arguments)
    assert (status, out, err) == (0, "[final]\n42\n", "")
    assert read.endswith("<|start|>user<|message|>What is\n6 * 7?<|end|><|start|>assistant")


def test_d8_raw_text_is_read_from_a_pipe(generate):
    assert generate("once \n", "--raw")[3] == "once "


@pytest.mark.parametrize(
    ("typed", "arguments"),
    [("", []), (" \n\n", []), ("", ["-"]), ("", ["--raw"]), ("", [""]), ("", [" \n"]), (None, [])],
)
def test_d8_an_empty_question_is_one_sentence(generate, typed, arguments):
    status, out, err, read = generate(typed, *arguments)
    assert (status, out, read, len(err.splitlines())) == (1, "", "", 1)
    assert "is empty; give a question" in err or "standard input is closed" in err


def test_d8_other_encodings_are_named(monkeypatch, capsys):
    """Python keeps bytes that are not UTF-8 as surrogates, or fails to decode them."""
    strict = io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8")
    for typed in (io.StringIO("caf\udce9"), strict):
        monkeypatch.setattr("sys.stdin", typed)
        assert main(["generate"]) == 1
        assert "standard input is not UTF-8" in capsys.readouterr().err


def test_d8_a_terminal_without_a_question_is_a_usage_error(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", Terminal())
    assert main(["generate"]) == 2
    assert "QUESTION: is missing; give a question, or pipe it in" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_d8_logits_and_traces_read_ids_from_a_pipe(write_tiny, tmp_path, monkeypatch, capsys):
    folder = str(write_tiny())
    for command in (["logits"], ["trace", "--points", "embed"]):
        out = str(tmp_path / f"{command[0]}.safetensors")
        arguments = [*command, folder, "--tokens", "-", "--out", out]
        monkeypatch.setattr("sys.stdin", io.StringIO("[1, 2, 3]"))
        assert main(arguments) == 0
        capsys.readouterr()
        for wrong in ("", "[1, 2", "[99999]", '["a"]'):
            monkeypatch.setattr("sys.stdin", io.StringIO(wrong))
            assert main(arguments) == 1
            errors = capsys.readouterr().err
            assert errors.startswith("oss-lab: standard input: ")
            assert errors.count("\n") == 1


def test_d8_a_trace_reads_its_prompt_from_a_pipe(tmp_path, monkeypatch, capsys):
    arguments = ["trace", "nano", "--points", "embed", "--effort", "low"]
    files = [tmp_path / "a", tmp_path / "b"]
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 * 4?\n"))
    assert main([*arguments, "--prompt", "-", "--out", str(files[0])]) == 0
    assert main([*arguments, "--prompt", "What is 3 * 4?", "--out", str(files[1])]) == 0
    assert capsys.readouterr().out == "".join(f"wrote {file}\n" for file in files)
    assert main(["diff", *map(str, files)]) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main([*arguments, "--prompt", "-", "--out", str(files[0])]) == 1
    assert "standard input is empty" in capsys.readouterr().err


def test_d9_raw_text_ends_at_a_stop_token(generate):
    for stop in ("<|return|>", "<|call|>", "<|endoftext|>"):
        assert generate("", "once", "--raw", script=f"and so{stop}on")[1] == "and so\n"


def test_d9_no_stop_continues_and_shows_the_stop_tokens(generate):
    status, out, *_ = generate(
        "", "once", "--raw", "--no-stop", "--json", "--max-tokens", "9", script="a<|return|>"
    )
    value = json.loads(out)
    assert (status, value["stop"], len(value["tokens"])) == (0, "length", 9)
    assert value["text"].startswith("a<|return|>")
    assert generate("", "once", "--no-stop")[0] == 1


def test_d9_from_python(reciting_lab):
    lab = reciting_lab("ab<|return|>")
    assert lab.generate("x").text == "ab"
    reply = lab.generate("x", ignore_stops=True, max_tokens=3)
    assert (reply.text, reply.stop) == ("ab<|return|>", "length")
    with pytest.raises(LabError, match="ignore_stops has no effect on a chat"):
        lab.chat("x", ignore_stops=True)


def run_into_closed_pipe(*command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"TQDM_DISABLE": "1"},
    )
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="closes a POSIX pipe")
@pytest.mark.parametrize(
    "command",
    [
        ["oss_lab", "--help"],
        ["oss_lab", "inspect", "20b"],
        ["oss_lab", "trace", "nano", "--points", "list"],
        pytest.param(["oss_lab", "chat"], marks=pytest.mark.slow),
        pytest.param(["oss_lab", "generate", "3 * 4"], marks=pytest.mark.slow),
        pytest.param(["oss_lab.proof", "--quick"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_closed_pipe_ends_every_program_quietly(command):
    assert run_into_closed_pipe("-m", *command) == (141, b"")


@pytest.mark.parametrize("argv", [["chat"], ["generate"]])
def test_standard_error_may_be_closed(argv):
    command = [sys.executable, "-m", "oss_lab", *argv]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command],
        input="What is 2 + 2?\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("[final]\n4\n")


@pytest.mark.skipif(os.name != "posix", reason="closes a POSIX pipe")
@pytest.mark.parametrize("write", ["print", "make_console().print"])
def test_a_closed_pipe_is_noticed_by_print_and_by_rich(write):
    code = f"""
import sys
from oss_lab.cli._pipe import make_console, run_program
sys.exit(run_program(lambda: {write}("a line") or 0))
"""
    assert run_into_closed_pipe("-c", code) == (141, b"")


def test_every_replaced_file_is_named(write_tiny, tmp_path, capsys):
    folder, ids, out = str(write_tiny()), tmp_path / "ids.json", tmp_path / "out"
    ids.write_text("[1, 2]")
    for command in (["logits"], ["trace", "--points", "embed"]):
        arguments = [*command, folder, "--tokens", str(ids), "--out", str(out)]
        for expected in ("", f"replaced {out}\n"):
            assert main(arguments) == 0
            assert capsys.readouterr().err == expected
        assert main([*arguments, "--dtype", "float64"]) != 0
        assert "replaced" not in capsys.readouterr().err
        out.unlink()


@pytest.mark.parametrize("idle", [["--out", "x"], ["--prompt", "a"], ["--tokens", "x.json"]])
def test_listing_points_refuses_options_that_it_would_ignore(idle, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["trace", "nano", "--points", "list", *idle]) == 1
    assert "--points list only prints the hook points" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_diff_names_the_tolerance_of_runs_that_round_differently(write_tiny, tmp_path, capsys):
    folder, ids = str(write_tiny()), tmp_path / "ids.json"
    ids.write_text("[1, 2, 3]")
    files = {}
    for name, dtype, points in (
        ("float32", "float32", "resid.post"),
        ("same", "float32", "resid.post"),
        ("bfloat16", "bfloat16", "resid.post"),
    ):
        files[name] = str(tmp_path / name)
        out = ["--tokens", str(ids), "--out", files[name], "--dtype", dtype]
        assert main(["trace", folder, "--points", points, *out]) == 0
    capsys.readouterr()
    assert main(["diff", files["float32"], files["bfloat16"]]) == 0
    output = capsys.readouterr()
    hint = output.err.splitlines()[-1]
    assert hint.startswith(
        "oss-lab: where the tokens are equal, these runs only round differently: "
    )
    tolerance = hint.split()[-3]
    assert main(["diff", files["float32"], files["bfloat16"], "--tolerance", tolerance]) == 0
    output = capsys.readouterr()
    assert "resid.post" not in output.out
    assert "tolerance" not in output.err
    assert main(["diff", files["float32"], files["same"]]) == 0
    assert capsys.readouterr() == ("", "")


def test_progress_is_lines_where_there_is_no_terminal(monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TQDM_DISABLE", "")
    monkeypatch.setattr(progress, "DELAY", 0.01)
    with progress.report_in_lines(lambda: "3 of 7", seconds=60):
        until = time.monotonic() + 30
        while not err.getvalue() and time.monotonic() < until:
            time.sleep(0.005)
    assert err.getvalue() == "3 of 7\n"
    monkeypatch.setattr(progress, "DELAY", 60)
    with progress.report_in_lines(lambda: "quick"):
        pass
    assert "quick" not in err.getvalue()


@pytest.mark.parametrize("device", ["cpuu", "hpu", "meta", "xla", "a" * 500, "cpu:x"])
def test_an_unknown_device_is_one_short_sentence(device, tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "run"), "--device", device]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert len(errors) < 200
    assert "cannot be used here" in errors
    assert "use cpu" in errors


def test_diff_names_the_tolerance_before_the_first_different_token(tmp_path, nano, capsys):
    """Runs of different lengths round differently, which is not an effect of later tokens."""
    ids = nano.tokens_of("What is 3 * 4?")
    traces = [nano.trace([*ids, last], ["resid.post"], layers=[3]) for last in (5, 6)]
    traces[1].tensors["resid.post/3"][7] += 2e-6
    for trace, name in zip(traces, "ab", strict=True):
        trace.save(tmp_path / name)
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    output = capsys.readouterr()
    assert f"tokens: first difference at position {len(ids)}" in output.out
    assert re.search(r"resid.post/3: from position \d on", output.out)
    assert output.err.endswith("only round differently: --tolerance 1e-05 ignores that\n")
    again = ["--tolerance", "1e-5"]
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), *again]) == 0
    assert f"resid.post/3: from position {len(ids)} on, 1 of" in capsys.readouterr().out
