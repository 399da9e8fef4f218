"""A fine-tuning run: it learns, repeats itself, resumes with the same bits, and can be used."""

import json
import shutil
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import oss_lab
from oss_lab.cli import finetune as command
from oss_lab.cli.main import main
from oss_lab.errors import LabError
from oss_lab.finetune import Finetuned, finetune, load_adapted
from oss_lab.finetune.curves import write_curves
from oss_lab.finetune.log import LOG, read_log
from oss_lab.finetune.run import Run

ADAPTER = "adapter_model.safetensors"
SETTINGS: dict[str, Any] = {"targets": "all", "batch": 4, "rows": 2, "length": 128, "steps": 6}
EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": f"Reverse {word}"},
            {"role": "assistant", "content": word[::-1]},
        ],
        "effort": "low",
    }
    for word in ("moon", "gold", "king", "tree", "lamp", "bird", "fish", "sand")
]


def tune(base: Path, out: Path, **changes: Any) -> Finetuned:
    settings: dict[str, Any] = SETTINGS | {"threads": 2} | changes
    return finetune(str(base), EXAMPLES, out, **settings)


@pytest.fixture(scope="module")
def tuned(finetune_base, tmp_path_factory) -> Finetuned:
    return tune(
        finetune_base, tmp_path_factory.mktemp("tuned"), steps=40, warm_up=2, learning_rate=2e-2
    )


@pytest.fixture(scope="module")
def whole(finetune_base, tmp_path_factory) -> Path:
    """The folder of six steps without a stop."""
    return tune(finetune_base, tmp_path_factory.mktemp("whole")).folder


def assert_same_run(one: Path, other: Path) -> None:
    for file in (ADAPTER, "state.safetensors"):
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), file
    times = ("seconds", "tokens_per_second")
    logs = [[{**vars(s), **dict.fromkeys(times)} for s in read_log(f / LOG)] for f in (one, other)]
    assert logs[0] == logs[1]


def test_the_loss_falls_and_the_model_learned_its_examples(tuned, finetune_base) -> None:
    first, last = tuned.steps[0], tuned.steps[-1]
    assert last.loss < first.loss / 2
    assert [each.step for each in tuned.steps] == list(range(40))
    assert last.learning_rate < tuned.steps[1].learning_rate == 2e-2
    assert 0 < first.learnt_tokens < first.tokens
    messages = EXAMPLES[0]["messages"][:1]
    before = oss_lab.load(finetune_base, verbose=False).logits(messages, effort="low")
    after = tuned.lab.logits(messages, effort="low")
    assert (after - before).abs().max() > 0.1
    assert tuned.lab.chat("Reverse moon", effort="low", max_tokens=3).engine == "reference"


def test_the_same_seed_gives_the_same_bits_with_any_number_of_threads(
    whole, finetune_base, tmp_path
) -> None:
    tune(finetune_base, tmp_path / "again", threads=1)
    assert_same_run(whole, tmp_path / "again")
    tune(finetune_base, tmp_path / "other", seed=1)
    ours, others = (load_file(each / ADAPTER) for each in (whole, tmp_path / "other"))
    assert any(not torch.equal(ours[name], others[name]) for name in ours)


def test_kernels_give_the_same_bits_with_any_number_of_threads(
    whole, finetune_base, tmp_path
) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    for threads in (1, 2):
        tune(finetune_base, tmp_path / f"{threads}", threads=threads, kernels="cpu")
    assert_same_run(tmp_path / "1", tmp_path / "2")
    ours, others = (read_log(each / LOG) for each in (whole, tmp_path / "1"))
    assert [each.loss for each in others] == pytest.approx([each.loss for each in ours], rel=1e-4)
    with pytest.raises(LabError, match='has kernels "cpu", not "reference"; use what'):
        tune(finetune_base, tmp_path / "1", resume=True)


@pytest.mark.parametrize("stop", [3, 4])
def test_a_resumed_run_ends_with_the_same_bits(whole, finetune_base, tmp_path, stop) -> None:
    """Stopped where the state was saved, and one step later, which is lost and done again."""
    run = Run(str(finetune_base), EXAMPLES, tmp_path, SETTINGS, threads=2, save_every=3)
    steps = run.train()
    assert len(list(islice(steps, stop))) == stop
    steps.close()
    assert not (tmp_path / ADAPTER).exists()
    tune(finetune_base, tmp_path, resume=True)
    assert_same_run(whole, tmp_path)


def test_a_run_stopped_before_its_first_state_starts_over(whole, finetune_base, tmp_path) -> None:
    steps = Run(str(finetune_base), EXAMPLES, tmp_path, SETTINGS, threads=1).train()
    next(steps)
    steps.close()
    tune(finetune_base, tmp_path, resume=True)
    assert_same_run(whole, tmp_path)


def test_a_folder_with_another_run_is_refused(whole, finetune_base, tmp_path) -> None:
    before = {each.name: each.read_bytes() for each in whole.iterdir()}
    for changes, said in (
        ({}, "already has a run; continue it with resume=True"),
        ({"resume": True, "rank": 4}, "has rank 8, not 4"),
        ({"resume": True, "targets": "experts"}, "has targets"),
    ):
        with pytest.raises(LabError, match=said):
            tune(finetune_base, whole, **changes)
    with pytest.raises(LabError, match="has other examples"):
        finetune(str(finetune_base), EXAMPLES[:7], whole, resume=True, **SETTINGS)
    with pytest.raises(LabError, match="has no run to resume"):
        tune(finetune_base, tmp_path / "none", resume=True)
    assert {each.name: each.read_bytes() for each in whole.iterdir()} == before
    assert not (tmp_path / "none").exists()


def test_a_damaged_log_or_state_is_refused(whole, finetune_base, tmp_path) -> None:
    for file, content, said in (
        (LOG, b"", "does not have each of the 6 steps"),
        ("recipe.json", b"{", r"recipe\.json is not JSON"),
        ("state.safetensors", b"x", r"state\.safetensors is damaged"),
    ):
        copy = tmp_path / file
        copy.mkdir()
        for each in whole.iterdir():
            (copy / each.name).write_bytes(each.read_bytes())
        (copy / file).write_bytes(content)
        with pytest.raises(LabError, match=said):
            tune(finetune_base, copy, resume=True)
    (tmp_path / LOG / "recipe.json").unlink()
    with pytest.raises(LabError, match="already has a run"):  # its state is not started from
        tune(finetune_base, tmp_path / LOG)


def test_the_adapter_read_back_has_the_same_logits(tuned, finetune_base, tmp_path) -> None:
    """Unmerged, and merged by `oss-lab convert` into BF16 experts, which rounds."""
    again = load_adapted(str(finetune_base), tuned.folder)
    ids = list(range(100, 140))
    assert torch.equal(again.logits(ids), tuned.lab.logits(ids))
    out = tmp_path / "merged"
    options = ["--to", "original", "--experts", "bf16", "--adapter", str(tuned.folder)]
    assert main(["convert", str(finetune_base), *options, "--out", str(out)]) == 0
    merged = oss_lab.load(out, verbose=False).logits(ids)
    plain = oss_lab.load(finetune_base, verbose=False).logits(ids)
    assert (merged - again.logits(ids)).norm() < 0.05 * (plain - again.logits(ids)).norm()
    dense = tune(out, tmp_path / "again", steps=1)  # dense experts can be fine-tuned too
    assert dense.steps[0].loss == pytest.approx(tuned.steps[-1].loss, rel=0.5)


def test_a_loss_that_is_not_finite_stops_the_run(finetune_base, tmp_path) -> None:
    with pytest.raises(LabError, match=r"step \d has the loss .* a lower learning rate"):
        tune(finetune_base, tmp_path, learning_rate=1e30, warm_up=0)
    assert not (tmp_path / ADAPTER).exists()


def test_bfloat16_trains(finetune_base, tmp_path) -> None:
    steps = tune(finetune_base, tmp_path, dtype="bfloat16", steps=8, recompute=True).steps
    assert steps[-1].loss < steps[0].loss
    assert all(t.dtype == torch.float32 for t in load_file(tmp_path / ADAPTER).values())


def write_data(folder: Path) -> str:
    file = folder / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, EXAMPLES)), encoding="utf-8")
    return str(file)


def test_the_command_trains_and_says_how_to_use_it(
    finetune_base, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")  # a busy machine would show progress
    out, data = tmp_path / "run", write_data(tmp_path)
    arguments = ["finetune", str(finetune_base), data, "--out", str(out), "--targets", "attention"]
    arguments += ["router", "--length", "128", "--batch", "4", "--channels", "final"]
    assert main([*arguments, "--steps", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0].startswith("memory at the peak: ")
    assert lines[1].startswith("fits on cpu (")
    assert "8 examples of" in lines[3]
    assert "0 of 3 steps are done" in lines[3]
    assert "3 steps in 0.0 minutes; loss" in lines[6]
    assert lines[-1] == f"  oss-lab chat {tmp_path / 'run-merged'}"
    page = (out / "curves.html").read_text("utf-8")
    assert "Training of run" in page
    assert 'http-equiv="refresh"' not in page
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["targets"] == ["q_proj", "k_proj", "v_proj", "o_proj", "router"]
    assert recipe["channels"] == ["final"]
    assert main([*arguments, "--steps", "3"]) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--steps", "3", "--resume"]) == 0
    assert "3 of 3 steps are done" in capsys.readouterr().out
    convert = lines[-2].split()[1:]
    assert main(convert) == 0
    assert oss_lab.load(tmp_path / "run-merged", verbose=False).logits([1, 2]).isfinite().all()


def test_during_the_run_a_browser_reads_the_curves_again(whole, tmp_path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    page = write_curves(tmp_path / "run", refresh=15).read_text("utf-8")
    assert '<meta http-equiv="refresh" content="15">' in page


def test_after_a_stop_a_browser_does_not_read_the_curves_again(whole, tmp_path, capsys) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))

    def stop_after_a_step():
        yield read_log(folder / LOG)[0]
        assert 'http-equiv="refresh"' in (folder / "curves.html").read_text("utf-8")
        raise KeyboardInterrupt

    stopped: Any = SimpleNamespace(folder=folder, done=0, total=6, train=stop_after_a_step)
    assert command.train(stopped) == 130
    assert 'http-equiv="refresh"' not in (folder / "curves.html").read_text("utf-8")
    assert "--resume continues" in capsys.readouterr().err


def test_the_command_plans_a_model_that_is_not_here(capsys) -> None:
    assert main(["finetune", "20b", "--plan", "--targets", "attention"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "on a GPU of 16 GB" in shown.out
    assert "fits on a GPU of 24 GB" in shown.out
    assert "TFLOP, so at least" in shown.out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 1, "expected DATA, a file of conversations"),
        (["DATA"], 1, "expected --out, a folder for the run"),
        (["DATA", "--out", "OUT", "--steps", "1", "--epochs", "1"], 1, "give one of them"),
        (["DATA", "--out", "OUT", "--steps", "0"], 1, "--steps is 0; it must be 1 or more"),
        (["DATA", "--out", "OUT", "--targets", "mlp"], 1, "there is no target 'mlp'"),
        (["DATA", "--out", "OUT", "--channels", "end"], 1, "there is no channel 'end'"),
        (["DATA", "--out", "OUT", "--resume"], 1, "has no run to resume"),
        (["DATA", "--out", "DATA"], 1, "is a file; --out needs a folder"),
        (["missing.jsonl", "--out", "OUT"], 1, "missing.jsonl: No such file"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    arguments, status, said, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, str] = {"DATA": write_data(tmp_path), "OUT": str(tmp_path / "out")}
    assert main(["finetune", "nano", *(str(names.get(each, each)) for each in arguments)]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in " ".join(shown.err.split())
    assert not (tmp_path / "out").exists()
