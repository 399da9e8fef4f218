"""Training: the same recipe gives the same weights, interrupted or not, on one thread or two. The
command exports them."""

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from oss_lab.cli import train as command
from oss_lab.cli.main import main
from oss_lab.errors import LabError
from oss_lab.evaluation.resume import resume
from oss_lab.harmony.messages import EFFORTS
from oss_lab.lab import load
from oss_lab.model import Transformer
from oss_lab.nano.suite import SUITE
from oss_lab.nano.training import evaluate
from oss_lab.nano.training.initialize import initialize
from oss_lab.nano.training.log import read_log, truncate_log
from oss_lab.nano.training.loop import train
from oss_lab.nano.training.machine import read_machine
from oss_lab.nano.training.optimizers import make_optimizers
from oss_lab.nano.training.quantized import RoundedExperts
from oss_lab.nano.training.recipe import Recipe
from oss_lab.nano.training.state import find_optimized_parameters, load_state, save_state


@pytest.fixture(scope="module")
def recipe(small_recipe):
    """The second half of the steps trains with MXFP4 rounding."""
    return replace(small_recipe, rounded=0.5)


@pytest.fixture(scope="module")
def run(recipe):
    """`run(folder, 2, save_every=2)`: the log of the first steps of `recipe` (by default of all),
    without their durations."""

    def steps_of(folder, steps=None, **options):
        return [replace(s, seconds=0) for s in islice(train(recipe, folder, **options), steps)]

    return steps_of


def state(folder):
    return load_file(folder / "state.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    """An uninterrupted run: its folder and its steps."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    return folder, run(folder)


def test_a_recipe_gives_the_same_weights_each_time(run, uninterrupted, tmp_path):
    folder, steps = uninterrupted
    assert run(tmp_path) == steps
    assert same(state(tmp_path), state(folder))
    assert len({step.loss for step in steps}) == 6


@pytest.fixture
def use_threads():
    """`threads(2)`: torch uses that many threads; reset at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_nothing(recipe, tmp_path, use_threads):
    """Wide enough that torch would split one group's sums among threads if it were allowed to."""
    wide = replace(recipe, model=replace(recipe.model, hidden_size=96), tokens=1200, steps=3)
    for n in (1, 2):
        use_threads(n)
        list(train(wide, tmp_path / str(n), threads=n))
    one, two = (read_log(tmp_path / str(n) / "log.jsonl") for n in (1, 2))
    assert [replace(s, seconds=0) for s in one] == [replace(s, seconds=0) for s in two]
    assert same(state(tmp_path / "1"), state(tmp_path / "2"))
    assert read_machine(tmp_path / "2").threads == 2


@pytest.mark.parametrize("stopped_after", [1, 4])
def test_an_interrupted_run_resumes_with_the_same_results(
    run, uninterrupted, tmp_path, stopped_after
):
    folder, steps = uninterrupted
    # Saved at every second or third step; steps after the last saved state are repeated.
    every = 2 if stopped_after % 2 else 3
    assert run(tmp_path, stopped_after, save_every=every) == steps[:stopped_after]
    kept = stopped_after // every * every
    assert run(tmp_path) == steps[kept:]
    assert same(state(tmp_path), state(folder))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in log] == [(s.step, s.loss) for s in steps]


def test_a_weight_without_gradients_resumes_without_moments(recipe, tmp_path):
    """Such as an expert that no token chose. Everything else is restored, including the running
    shares."""
    model = Transformer(recipe.model, RoundedExperts)
    initialize(model, 0)
    names = [name for name, _ in model.named_parameters()]
    optimizers = make_optimizers(model, recipe)
    idle = next(name for name in names if ".dense." in name)
    for name, parameter in model.named_parameters():
        parameter.grad = None if name == idle else torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    share = torch.rand(1, 4)
    save_state(tmp_path / "state", model, optimizers, {"share": share}, 7)

    other = Transformer(recipe.model, RoundedExperts)
    others, back = make_optimizers(other, recipe), torch.zeros(1, 4)
    assert load_state(tmp_path / "state", other, others, {"share": back}) == 7
    assert torch.equal(back, share)
    assert same(model.state_dict(), other.state_dict())
    kept, loaded = moments(model, optimizers), moments(other, others)
    assert set(kept) == set(loaded) == set(names) - {idle}
    assert all(same(kept[name], loaded[name]) for name in kept)


def moments(model, optimizers):
    """What the optimizers store for each parameter that has stored state."""
    return {
        name: optimizer.state[parameter]
        for optimizer in optimizers
        for parameter, name in find_optimized_parameters(optimizer, model)
        if parameter in optimizer.state
    }


def test_another_recipe_is_refused_and_nothing_is_changed(recipe, run, tmp_path):
    run(tmp_path, 2, save_every=2)
    before = contents(tmp_path)
    with pytest.raises(LabError, match="another recipe"):
        next(train(replace(recipe, seed=1), tmp_path))
    assert contents(tmp_path) == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("missing", [["state.safetensors"], ["state.safetensors", "recipe.json"]])
def test_a_run_without_its_state_is_not_overwritten(recipe, run, tmp_path, missing):
    """Such as the folder of the shipped nano, which has recipe and log: --out there used to erase
    the log."""
    run(tmp_path, 2, save_every=2)
    for name in missing:
        (tmp_path / name).unlink()
    before = contents(tmp_path)
    with pytest.raises(LabError, match="choose another folder"):
        run(tmp_path, save_every=2)
    with pytest.raises(LabError, match="choose another folder"):
        next(train(replace(recipe, seed=1), tmp_path))
    assert contents(tmp_path) == before


def test_the_shipped_folder_is_not_overwritten(tmp_path):
    for name in ("recipe.json", "log.jsonl"):
        shutil.copy(command.SHIPPED / name, tmp_path)
    before = contents(tmp_path)
    for recipe in (Recipe(), Recipe(steps=9)):
        with pytest.raises(LabError, match="choose another folder"):
            next(train(recipe, tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda log: log.unlink(),
        lambda log: log.write_text(log.read_text()[:-9]),
        lambda log: log.write_text(log.read_text().splitlines()[1] + "\n"),
        lambda log: log.write_text("\n" + log.read_text()),
    ],
)
def test_a_run_with_a_truncated_log_does_not_resume(run, tmp_path, damage):
    """A truncated line used to be ended where it was cut, which left invalid JSON in the log for
    good."""
    run(tmp_path, 2, save_every=2)
    damage(tmp_path / "log.jsonl")
    before = contents(tmp_path)
    with pytest.raises(
        LabError, match=r"does not have each of the 2 steps .*; restore the complete"
    ):
        run(tmp_path)
    assert contents(tmp_path) == before


def test_a_log_is_shortened_in_a_new_file(run, tmp_path, monkeypatch):
    """A kill during writing, here a full disk, keeps the old log intact."""
    run(tmp_path, 3, save_every=2)
    log = tmp_path / "log.jsonl"
    before, write = log.read_text(), Path.write_text

    def full(file, text, **options):
        write(file, text[:50], **options)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        truncate_log(log, 2)
    assert log.read_text() == before


def test_a_damaged_state_is_one_sentence(run, tmp_path):
    run(tmp_path, 2, save_every=2)
    (tmp_path / "state.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(LabError, match="is damaged"):
        run(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "weight/embedding.weight",
        "share",
        "exp_avg/embedding.weight",
        "exp_avg_sq/unembedding.weight",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "reshaped"])
def test_a_state_that_does_not_fit_is_one_sentence(run, tmp_path, name, damage):
    run(tmp_path, 2, save_every=2)
    tensors = state(tmp_path)
    found = tensors.pop(name)
    if damage == "reshaped":
        tensors[name] = torch.stack([found, found])
    save_file(tensors, tmp_path / "state.safetensors")
    with pytest.raises(LabError, match=r"state\.safetensors (does not fit|is not a state)"):
        run(tmp_path)


def test_another_seed_gives_other_weights(recipe, uninterrupted, tmp_path):
    other = list(islice(train(replace(recipe, seed=1), tmp_path), 1))
    assert other[0].loss != uninterrupted[1][0].loss


def test_the_command_trains_exports_and_resumes(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "oss_lab.nano.training.recipe.Recipe", lambda **given: replace(recipe, **given)
    )
    arguments = ["train", "--out", str(tmp_path), "--steps", "2", "--device", "cpu"]
    arguments += ["--problems", "0"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert output.err == ""  # progress is shown on terminals only
    checkpoint = tmp_path / "checkpoint"
    assert f"wrote {checkpoint}" in output.out
    assert "Training of" in (tmp_path / "curves.html").read_text("utf-8")
    lab = load(checkpoint, device="cpu", verbose=False)
    assert lab.config == recipe.model
    trained, exported = state(tmp_path), lab.model.state_dict()
    assert torch.equal(
        exported["embedding.weight"], trained["weight/embedding.weight"].bfloat16().float()
    )
    assert main(arguments) == 0  # finished: nothing is trained; the checkpoint is written again
    assert not (checkpoint / "evaluation.json").exists()
    assert main([*arguments[:3], "--steps", "3", "--device", "cpu"]) == 1
    assert "another recipe" in capsys.readouterr().err


def test_the_command_evaluates_the_trained_model(recipe, tmp_path, monkeypatch, capsys):
    """Two rows, one problem each. Interrupted during them, the same command resumes."""
    monkeypatch.setattr(
        "oss_lab.nano.training.recipe.Recipe", lambda **given: replace(recipe, **given)
    )
    rows = {name: SUITE[name] for name in ("list", "small talk")}
    monkeypatch.setattr(evaluate, "SECTIONS", {"suite": rows, "stress": {}})
    monkeypatch.setattr(evaluate, "MAX_TOKENS", 2)
    arguments = ["train", "--out", str(tmp_path), "--steps", "2", "--device", "cpu"]
    arguments += ["--problems", "1"]

    asked = []

    def stop_or_call(*args, **options):
        for outcome in resume(*args, **options):
            asked.append(outcome)
            if len(asked) == 3:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(evaluate, "resume", stop_or_call)
    assert main(arguments) == 130
    assert list((tmp_path / "checkpoint").glob("*.journal"))
    assert main(arguments) == 0
    assert len(asked) == 2 * len(EFFORTS)  # none was asked twice
    file = tmp_path / "checkpoint" / "evaluation.json"
    report = json.loads(file.read_text())
    assert {(each["name"], each["effort"], each["n"]) for each in report["suite"]} == {
        (name, effort, 1) for name in rows for effort in EFFORTS
    }
    output = capsys.readouterr()
    assert "small talk" in output.out
    assert f"wrote {file}" in output.out
    assert output.err == ""
    assert not list(file.parent.glob("*.journal"))


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--steps", "0"], 1, "--steps is 0; it must be"),
        (["--steps", "many"], 2, "--steps"),
        (["--threads", "0"], 1, "--threads is 0; it must be"),
        (["--problems", "-1"], 1, "--problems is -1; it must be"),
        (["--smoke", "--problems", "1"], 1, "--smoke repeats the shipped recipe"),
        (["--mix", "sums"], 1, "--mix is 'sums'"),
        (["--smoke", "--seed", "1"], 1, "--smoke repeats the shipped recipe"),
        (["--device", "cpuu"], 1, "device 'cpuu' cannot be used"),
    ],
)
def test_the_commands_mistakes_are_one_line(arguments, status, sentence, tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "run"), *arguments]) == status
    output = capsys.readouterr()
    assert (output.out, len(output.err.splitlines())) == ("", 1)
    assert sentence in output.err
    assert not (tmp_path / "run").exists()
