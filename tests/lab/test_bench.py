"""The benchmark runs every task and prints its report. Its speeds are not tested."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from oss_kernels.backends import load_backend
from rich.console import Console

from oss_lab.bench import __main__ as bench
from oss_lab.bench import pages
from oss_lab.bench.formula import count_step_bytes
from oss_lab.bench.llama import LlamaBench
from oss_lab.bench.peers import Peers, find_peers
from oss_lab.bench.report import SIDES, build_table, compare_with_best_peer
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks import TASKS, batch, context, decode, generate, prefill, stream
from oss_lab.bench.tasks.context import fill_cache
from oss_lab.checkpoint.plan import bytes_per_token, kv_cache_bytes
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.config import GPT_OSS_20B
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.errors import LabError

CHILDREN = "load", "memory"  # tasks that start processes


@pytest.fixture
def short_tasks(monkeypatch):
    monkeypatch.setattr(prefill, "LENGTHS", (16, 64))
    monkeypatch.setattr(context, "CONTEXTS", (0, 40, 10**9))
    for module in (decode, generate, stream, batch):
        monkeypatch.setattr(module, "NEW", 4)


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["bench", "--threads", threads, *arguments])
    status = bench.main()
    return status, *capsys.readouterr()


def test_every_task_is_reported_for_the_sides_that_can_do_it(
    monkeypatch, capsys, write_tiny, short_tasks, tmp_path
):
    pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setattr("oss_lab.bench.tasks.recording.ROUNDS", 1)
    names = ",".join(name for name in TASKS if name not in CHILDREN)
    checkpoint = str(write_tiny())
    status, out, _ = run(
        monkeypatch, capsys, "--checkpoint", checkpoint, "--repeats", "1", "--json", "--peers",
        "--tasks", names, "--results", str(tmp_path / "kept"),
    )  # fmt: skip
    assert status == 0
    report = json.loads(out)
    (kept,) = (tmp_path / "kept").glob("*.json")
    assert json.loads(kept.read_text()) == report
    assert report["device"]["instructions"]
    assert report["reading"] > 0
    assert report["missing"] == ["llama.cpp: give the path of its program with --llama-bench PATH"]
    by_task = {}
    for row in report["rows"]:
        by_task.setdefault(row["task"], set()).add(row["by"])
        spread = row["spread"]
        assert spread["low"] <= spread["median"] <= spread["high"]
        assert row["unit"] == "%" or spread["low"] > 0
    both = {"oss_lab", "transformers"}
    assert by_task == {
        "decode 4 after 100": both,
        "generate 4 after 100": both,
        "prefill 16": both,
        "prefill 64": both,
        "first token after 100": both,
        "decode 4 in 8 rows": both,
        "step after 0": {"oss_lab"},
        "step after 40": {"oss_lab"},
        "recording nothing again": {"oss_lab"},
        "recording tier 1": {"oss_lab"},
        "recording tier 1 without logits": {"oss_lab"},
        "counterfactual map (reference)": {"oss_lab"},
    }
    console = Console(file=io.StringIO(), width=200)
    console.print(build_table(report))
    assert isinstance(console.file, io.StringIO)
    assert all(task in console.file.getvalue() for task in by_task)


@pytest.mark.slow
def test_a_separate_process_measures_loading_and_memory(monkeypatch, capsys, write_tiny):
    status, out, _ = run(
        monkeypatch, capsys, "--checkpoint", str(write_tiny()), "--repeats", "1", "--json",
        "--tasks", "memory,load",
    )  # fmt: skip
    assert status == 0
    load, peak, above = json.loads(out)["rows"]
    assert [load["unit"], peak["unit"], above["unit"]] == ["s", "MiB", "MiB"]
    assert 0 < load["spread"]["median"] < 100
    assert 0 < above["spread"]["median"] < peak["spread"]["median"] < 2000


def test_a_peer_that_is_not_installed_is_named_in_one_sentence(monkeypatch, write_tiny, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    checkpoint = open_checkpoint(write_tiny())
    peers = find_peers(checkpoint, "no-such-program", tmp_path, 1)
    assert (peers.has_transformers, peers.llama) == (False, None)
    assert peers.missing == (
        'transformers: transformers is not installed: `pip install "oss-lab[test]"` adds it',
        "llama.cpp: no-such-program is not a program; give the path of llama-bench",
    )


FAKE = """#!{python}
import json, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if given["-p"] == "7": sys.exit("the model is broken")
assert open(given["-m"], "rb").read(4) == b"GGUF"
about = {{"build_commit": "abc", "build_number": 5, "cpu_info": "a CPU"}}
print(json.dumps([about | {{"avg_ns": 250_000_000, "given": given}}]))
"""


def test_llama_bench_is_run_on_the_gguf_file_of_nano(tmp_path):
    pytest.importorskip("gguf", reason="gguf is not installed")
    program = tmp_path / "llama-bench"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    peers = find_peers(open_checkpoint("nano"), str(program), tmp_path, 2)
    llama = peers.llama
    assert llama is not None
    assert llama.describe() == {"build_commit": "abc", "build_number": 5, "cpu_info": "a CPU"}
    prompt = torch.zeros(1, 100, dtype=torch.long)
    timed = llama.decode(prompt, 8)
    assert timed is not None
    assert timed() == 0.25
    assert llama.decode(prompt.expand(2, -1), 8) is None
    with pytest.raises(LabError, match=r"llama-bench ended with status 1: the model is broken$"):
        llama.run("-p", 7)
    with pytest.raises(LabError, match=r"/echo printed no JSON; is it llama-bench\?$"):
        LlamaBench(Path(shutil.which("echo") or ""), Path("b"), 3).run()
    command = LlamaBench(Path("a"), Path("b"), 3).command("-n", 4)
    assert command == ["a", "-m", "b", "-t", "3", "-r", "1", "-o", "json", "-n", "4"]


def test_a_peer_is_slower_if_it_has_fewer_tokens_or_more_seconds():
    def row(by, unit, median):
        return {"by": by, "unit": unit, "spread": {"median": median}}

    speeds = {"oss_lab": 30, "transformers": 10, "llama.cpp": 20}
    rows = {by: row(by, "tokens/s", n) for by, n in speeds.items()}
    assert compare_with_best_peer(rows) == 1.5
    rows = {by: row(by, "MiB", n) for by, n in speeds.items()}
    assert compare_with_best_peer(rows) == pytest.approx(1 / 3)
    assert compare_with_best_peer({"oss_lab": rows["oss_lab"]}) is None


def test_the_pages_have_the_newest_results():
    reports = pages.read_newest()
    assert pages.PAGE.read_text(encoding="utf-8") == pages.format_page(reports)
    readme = pages.README.read_text(encoding="utf-8")
    assert pages.format_short(reports) in readme
    assert pages.format_curve(pages.draw_curve(reports)) in readme
    assert len(pages.TABLE.findall(readme)) == 1
    for report in reports.values():
        assert report["device"]["name"] in readme
        assert {row["by"] for row in report["rows"]} == set(SIDES)


def test_the_formula_counts_the_published_weights_and_windows():
    cpu, reference = load_backend("cpu"), load_backend("reference")
    packed = count_step_bytes(GPT_OSS_20B, "bfloat16", cpu, 131_072)
    cache = kv_cache_bytes(GPT_OSS_20B, 131_072, history="window")
    assert packed == bytes_per_token(GPT_OSS_20B) + cache
    dense = count_step_bytes(GPT_OSS_20B, "float32", reference, 0)
    assert dense == 4 * (3_608_307_264 + GPT_OSS_20B.hidden_size)  # the active parameters


def test_a_filled_cache_has_random_keys_for_every_layer(random_model, tiny_config):
    engine = ReferenceEngine(random_model(tiny_config))
    cache = fill_cache(engine, torch.float32, 100)
    assert [layer.first for layer in cache.layers] == [100 - 7, 0]
    token = torch.zeros(1, 1, dtype=torch.long)
    with torch.inference_mode():
        first = engine.forward(token, cache, last=1)
        cache.truncate(100)
        assert torch.equal(engine.forward(token, cache, last=1), first)
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("option", ["--repeats", "--threads"])
@pytest.mark.parametrize("number", ["0", "-3", "two"])
def test_counts_are_positive_integers(monkeypatch, capsys, option, number):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, capsys, f"{option}={number}")
    assert ended.value.code == 2
    expected = f"{option}: expected a whole number of 1 or more, got '{number}'"
    assert expected in capsys.readouterr().err


def test_an_unknown_task_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--tasks=decode,sing")
    assert "'sing' is not a task; use load, memory, decode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--llama-bench", "/bin/llama-bench"], "--llama-bench has no effect without --peers"),
        (["--results", __file__], f"--results {__file__}: File exists"),
        (["--results", f"{__file__}/a"], f"--results {__file__}/a: Not a directory"),
        (["--tasks", "prefill", "--longest", "64"], "nothing was measured: prefill reads 128"),
    ],
)
def test_a_run_without_a_result_is_one_sentence(monkeypatch, capsys, write_tiny, options, reason):
    monkeypatch.setattr(bench, "measure_reading", lambda: 1.0)
    status, out, err = run(monkeypatch, capsys, "--checkpoint", str(write_tiny()), *options)
    assert (status, out) == (1, "")
    assert f"oss_lab.bench: {reason}" in err
    assert "Traceback" not in err


def test_without_peers_only_ours_is_measured(write_tiny):
    setting = Setting(
        open_checkpoint(write_tiny()), "float32", load_backend("reference"), 1, 1, Peers()
    )
    assert [side.name for side in setting.sides] == ["oss_lab"]
