"""`oss-lab eval`: tables, JSON, figures, interrupted runs, mistakes."""

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
from oss_lab.harmony.messages import EFFORTS

KEYS = {"effort", "accuracy", "interval", "mean_analysis_tokens", "n", "cut_off"}
KEYS |= {"calls_unanswered", "malformed", "diagnostics", "tasks"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder where outcomes are stored by default."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    return tmp_path / "cache" / "eval"


@pytest.fixture
def random_nano(write_tiny, tiny_config):
    """The folder of a checkpoint with random weights and nano's vocabulary."""
    return str(write_tiny(config=replace(tiny_config, vocab_size=GPT_OSS_NANO.vocab_size)))


@pytest.fixture
def evaluate(random_nano, capsys):
    """`evaluate(*arguments)`: status, stdout and stderr. Replies have at most 6 tokens."""

    def call(*arguments):
        limit = () if "--max-tokens" in arguments else ("--max-tokens", "6")
        status = main(["eval", random_nano, *limit, *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def problems(tmp_path):
    """A file of twelve questions; the second half counts in a separate row."""
    path = tmp_path / "mine.jsonl"
    more = [{}] * 6 + [{"name": "later"}] * 6
    values = [{"prompt": "?" * n, "answer": n} | extra for n, extra in enumerate(more, 1)]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def test_table(evaluate, problems):
    status, out, err = evaluate("--problems", problems)
    assert (status, err) == (0, "")
    for effort in EFFORTS:
        assert out.count(f"│ {effort} ") == 3
    assert [out.count(f"│ {name} ") for name in ("mine", "later", "all questions")] == [3] * 3


def test_one_name_has_no_total_row(evaluate, problems):
    out = evaluate("--problems", problems, "--limit", "6", "--effort", "low")[1]
    assert out.count("│ low") == out.count("│ mine") == 1
    assert "all questions" not in out


def test_json_of_one_effort_and_of_all(evaluate, problems):
    status, out, err = evaluate("--problems", problems, "--effort", "medium", "--json")
    value = json.loads(out)
    assert (status, err, len(out.splitlines())) == (0, "", 1)
    assert (set(value), value["effort"], value["n"]) == (KEYS, "medium", 12)
    assert value["cut_off"] > 0  # random weights rarely end a reply
    assert [(task["name"], task["n"]) for task in value["tasks"]] == [("mine", 6), ("later", 6)]
    values = json.loads(evaluate("--problems", problems, "--json")[1])
    assert [each["effort"] for each in values] == list(EFFORTS)
    assert values[1] == value


def test_a_complete_run_only_prints_its_scores(evaluate, problems, cache, monkeypatch):
    first = evaluate("--problems", problems, "--json")[1]
    (file,) = cache.iterdir()
    before = file.read_bytes()
    monkeypatch.setattr("oss_lab.lab.Lab.chat_batch", None)
    status, out, err = evaluate("--problems", problems, "--json")
    assert (status, out) == (0, first)
    assert err == f"36 of 36 answers are from an earlier run ({file}); --fresh discards them\n"
    assert file.read_bytes() == before


def stop_after(monkeypatch, n):
    """Press Ctrl-C once the n-th batch from now is answered."""
    from oss_lab.lab import Lab

    usual, left = Lab.chat_batch, [n]

    def chat_batch(*args, **options):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return usual(*args, **options)

    monkeypatch.setattr(Lab, "chat_batch", chat_batch)


def test_an_interrupted_run_resumes(evaluate, problems, tmp_path, monkeypatch):
    whole = evaluate("--problems", problems, "--json")[1]
    command = ("--problems", problems, "--json", "--batch", "5", "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        status, out, err = evaluate(*command)
    file = tmp_path / "run" / "outcomes.jsonl"
    assert (status, out) == (130, "")
    assert err == f"stopped with 17 of 36 answers, saved in {file}; the same command resumes\n"
    assert len(file.read_bytes().splitlines()) == 18
    with file.open("ab") as stream:
        stream.write(b'{"index": 3, "na')  # as if the process was killed while writing
    status, out, err = evaluate(*command, "--batch", "3")
    assert (status, out) == (0, whole)
    assert err.startswith("17 of 36 answers are from an earlier run")
    assert len(file.read_bytes().splitlines()) == 37


def test_fresh_starts_over(evaluate, problems, monkeypatch):
    command = ("--problems", problems, "--json", "--effort", "low")
    whole = evaluate(*command)[1]
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        status, _, err = evaluate(*command, "--fresh")
    assert status == 130
    assert "the same command without --fresh resumes" in err
    assert evaluate(*command) == (0, whole, "")  # nothing was left to do


def test_outcomes_of_another_evaluation_are_refused(evaluate, problems, tmp_path):
    command = ("--problems", problems, "--effort", "low", "--out", tmp_path / "run")
    assert evaluate(*command)[0] == 0
    problems.write_text(problems.read_text() + '{"prompt": "more?", "answer": 1}\n')
    status, out, err = evaluate(*command)
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "belongs to another evaluation (questions differ)" in err
    assert evaluate(*command, "--fresh")[0] == 0


def test_built_in_questions(evaluate, cache):
    for arguments in ((), ("--seed", "2"), ("--max-tokens", "5"), ("--n", "2")):
        command = ("--limit", "3", "--n", "1", "--effort", "low", "--json", *arguments)
        status, out, err = evaluate(*command)
        assert (status, err, json.loads(out)["n"]) == (0, "", 3)
    assert len(list(cache.iterdir())) == 4  # each is a different evaluation


def test_plot(evaluate, problems, tmp_path):
    page = tmp_path / "plot.html"
    assert evaluate("--problems", problems, "--plot", page)[0] == 0
    text = page.read_text("utf-8")
    assert "Over " in text
    assert "analysis tokens per question" in text


def test_public_formats(evaluate, tmp_path):
    aime, gpqa, mmlu = tmp_path / "aime.jsonl", tmp_path / "gpqa_main.csv", tmp_path / "a_test.csv"
    aime.write_text('{"question": "1+1?", "answer": "2"}\n')
    gpqa.write_text(
        "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
        "1+1?,2,3,4,5\n"
    )
    mmlu.write_text("1+1?,2,3,4,5,A\n")
    for name, file in (("aime", aime), ("gpqa", gpqa), ("mmlu", mmlu), ("mmlu", tmp_path)):
        status, out, err = evaluate(
            "--format", name, "--problems", file, "--effort", "low", "--json"
        )
        assert (status, json.loads(out)["n"]) == (0, 1)
        assert err == "" or file == tmp_path  # the same questions as in the folder's only file


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--effort", "huge"], 2, "--effort"),
        (["--n", "x"], 2, "--n"),
        (["--n", "0"], 1, "--n is 0; it must be"),
        (["--limit", "0"], 1, "--limit is 0; it must be"),
        (["--batch", "0"], 1, "--batch is 0; it must be"),
        (["--threads", "1025"], 1, "--threads is 1025; it must be"),
        (["--threads", "0"], 1, "--threads is 0; it must be"),
        (["--max-tokens", "0"], 1, "--max-tokens is 0; it must be"),
        (["--seed", "-1"], 1, "--seed is -1; it must be"),
        (["--format", "aime"], 1, "name the file too"),
        (["--problems", "x", "--n", "3"], 1, "with --problems use --limit"),
        (["--problems", "nowhere.jsonl"], 1, "nowhere.jsonl: No such file"),
        (["--problems", "."], 1, "directory"),
        (["--plot", "x.png"], 1, "a name ending in .html, got x.png"),
        (["--plot", "nowhere/x.html"], 1, "nowhere is not a folder"),
        (["--n", "1", "--out", os.devnull], 1, os.devnull),
    ],
)
def test_a_mistake_is_one_line(evaluate, arguments, status, sentence):
    found, out, err = evaluate(*arguments)
    assert (found, out, len(err.splitlines())) == (status, "", 1)
    assert sentence in err


def test_defects_of_a_file_and_of_a_folder_are_one_line(evaluate, tmp_path, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "1+1?"}\n')
    assert evaluate("--problems", bad) == (
        1,
        "",
        f"oss-lab: {bad}, line 1: the question has no answer\n",
    )
    assert main(["eval", str(tmp_path / "nowhere")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "1" * 40_000, "answer": 1}))
    status, out, err = evaluate("--problems", long)
    assert (status, out) == (1, "")
    assert "question 1 (long) takes" in err.splitlines()[-1]  # after progress, on a slow machine


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_a_killed_process_resumes(random_nano, problems, tmp_path):
    def command(folder):
        asked = ["--problems", str(problems), "--max-tokens", "40", "--batch", "1", "--json"]
        kept = ["--out", str(tmp_path / folder)]
        return [sys.executable, "-m", "oss_lab", "eval", random_nano, *asked, *kept]

    def finish(folder):
        return subprocess.run(command(folder), capture_output=True, text=True, check=True)

    whole = finish("whole").stdout
    file = tmp_path / "killed" / "outcomes.jsonl"
    process = subprocess.Popen(command("killed"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") >= 20):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert file.read_bytes().count(b"\n") < 37
    done = finish("killed")
    assert done.stdout == whole
    assert "are from an earlier run" in done.stderr


def test_help_loads_no_torch():
    code = (
        "import sys; from oss_lab.cli.main import build_group; build_group();"
        "assert 'torch' not in sys.modules and 'plotly' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
