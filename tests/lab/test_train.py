"""Training: the same recipe gives the same weights, stopped or not; the command exports them."""

import json
import runpy
from dataclasses import replace
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from oss_lab.cli import train as command
from oss_lab.cli.main import main
from oss_lab.config import GPT_OSS_NANO
from oss_lab.errors import LabError
from oss_lab.loading import load
from oss_lab.train.loop import Recipe, train

SMALL = replace(
    GPT_OSS_NANO,
    num_hidden_layers=1,
    num_experts=16,
    experts_per_token=1,
    hidden_size=32,
    intermediate_size=32,
    num_attention_heads=2,
    num_key_value_heads=1,
    layer_types=(),
)
# The last half trains through MXFP4 rounding. So few tokens that some experts are never chosen.
RECIPE = Recipe(model=SMALL, steps=6, tokens=250, micro_tokens=130, warm_up=2, rounded=0.5)


def run(folder, steps=None, **options):
    """What the log says of these steps, their durations left out."""
    return [replace(s, seconds=0) for s in islice(train(RECIPE, folder, **options), steps)]


def state(folder):
    return load_file(folder / "state.safetensors")


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A whole run: its folder and its steps."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    return folder, run(folder)


def test_a_recipe_gives_the_same_weights_again(straight, tmp_path):
    folder, steps = straight
    assert run(tmp_path) == steps
    assert same(state(tmp_path), state(folder))
    assert len({step.loss for step in steps}) == 6


@pytest.mark.parametrize("stopped_after", [1, 3, 4, 5])
def test_a_stopped_run_goes_on_as_if_it_had_not(straight, tmp_path, stopped_after):
    folder, steps = straight
    # Saved at every second or third step: what came after the last state is done again.
    every = 2 if stopped_after % 2 else 3
    assert run(tmp_path, stopped_after, save_every=every) == steps[:stopped_after]
    kept = stopped_after // every * every
    assert run(tmp_path) == steps[kept:]
    assert same(state(tmp_path), state(folder))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in log] == [(s.step, s.loss) for s in steps]


def test_some_expert_was_never_chosen(straight):
    """What the two tests above rely on, so that a state without moments is among theirs."""
    weights = [name for name in state(straight[0]) if name.startswith("weight/")]
    moments = [name for name in state(straight[0]) if name.startswith("exp_avg/")]
    assert 0 < len(moments) < len(weights)


def test_another_recipe_is_refused_and_nothing_is_touched(straight, tmp_path):
    run(tmp_path, 2, save_every=2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(LabError, match="another recipe"):
        next(train(replace(RECIPE, seed=1), tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_state_is_one_sentence(tmp_path):
    run(tmp_path, 2, save_every=2)
    (tmp_path / "state.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(LabError, match="is damaged"):
        run(tmp_path)


def test_another_seed_gives_other_weights(straight, tmp_path):
    other = list(islice(train(replace(RECIPE, seed=1), tmp_path), 1))
    assert other[0].loss != straight[1][0].loss


def test_the_command_trains_exports_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("oss_lab.train.loop.Recipe", lambda **given: replace(RECIPE, **given))
    arguments = ["train", "--out", str(tmp_path), "--steps", "2", "--device", "cpu"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert output.err == ""  # progress is for terminals
    checkpoint = tmp_path / "checkpoint"
    assert f"wrote {checkpoint}" in output.out
    lab = load(checkpoint, device="cpu", verbose=False)
    assert lab.config == SMALL
    trained, exported = state(tmp_path), lab.model.state_dict()
    assert torch.equal(
        exported["embedding.weight"], trained["weight/embedding.weight"].bfloat16().float()
    )
    assert main(arguments) == 0  # finished: nothing is trained, the checkpoint is written again
    assert main([*arguments[:3], "--steps", "3", "--device", "cpu"]) == 1
    assert "another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--steps", "0"], 1, "--steps is 0"),
        (["--steps", "many"], 2, "--steps"),
        (["--threads", "0"], 1, "--threads is 0"),
        (["--device", "cpuu"], 1, "device 'cpuu' cannot be used"),
    ],
)
def test_the_commands_mistakes_are_one_line(arguments, status, sentence, tmp_path, capsys):
    assert main(["train", "--out", str(tmp_path / "run"), *arguments]) == status
    output = capsys.readouterr()
    assert (output.out, len(output.err.splitlines())) == ("", 1)
    assert sentence in output.err
    assert not (tmp_path / "run").exists()


def test_the_module_is_the_command(monkeypatch):
    called = []
    monkeypatch.setattr(command, "run", lambda args: called.append(args.steps) or 0)
    monkeypatch.setattr("sys.argv", ["x", "--steps", "7"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("oss_lab.train", run_name="__main__")
    assert (ended.value.code, called) == (0, [7])
