"""`oss-lab trace` and `oss-lab diff`: the requested file, or one sentence and no file."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import load_model
from oss_lab.cli.main import main
from oss_lab.model import Recorder
from oss_lab.record.trace import read_trace

IDS = list(range(30))


@pytest.fixture
def trace(write_tiny, tmp_path, capsys):
    """trace.run("--points", ...): status, OUT's tensors or None, stderr."""
    folder, out, ids = write_tiny(), tmp_path / "out.safetensors", tmp_path / "ids.json"
    ids.write_text(json.dumps(IDS))

    def run(*arguments, model=folder, source=("--tokens", str(ids))):
        status = main(["trace", str(model), *source, "--out", str(out), *arguments])
        captured = capsys.readouterr()
        assert captured.out == ("" if status else f"wrote {out}\n")
        return status, load_file(out) if out.exists() else None, captured.err

    return SimpleNamespace(run=run, folder=folder, out=out)


def test_tensors_are_named_by_point_and_layer(trace):
    status, tensors, errors = trace.run(
        "--points", "resid.mid,attn.sink_mass,moe.margin,out.logits"
    )
    assert (status, errors) == (0, "")
    model = load_model(find_checkpoint(trace.folder))
    seen = Recorder(["resid.mid", "attn.sink_mass"])
    logits = model(torch.tensor([IDS]), hooks=seen)[0]
    layers = range(model.config.num_hidden_layers)
    named = {
        f"{name}/{n}" for name in ("resid.mid", "attn.sink_mass", "moe.margin") for n in layers
    }
    assert tensors.keys() == named | {"out.logits"}
    torch.testing.assert_close(tensors["out.logits"], logits)
    torch.testing.assert_close(tensors["resid.mid/1"], seen.seen["resid.mid", 1][0][0])
    torch.testing.assert_close(tensors["attn.sink_mass/0"], seen.seen["attn.sink_mass", 0][0][0].T)
    assert read_trace(trace.out).labels[3].text == "<token 3>"  # no known vocabulary has this size


def test_a_prompt_of_nano_is_harmony(trace):
    source = ("--prompt", "What is 3 * 4?", "--effort", "low")
    status, tensors, _ = trace.run(
        "--points", "moe.expert_ids", "--layers", "2", model="nano", source=source
    )
    assert status == 0
    assert tensors.keys() == {"moe.expert_ids/2"}
    labels = read_trace(trace.out).labels
    text = "".join(label.text for label in labels)
    assert "Reasoning: low" in text
    assert text.endswith("<|start|>user<|message|>What is 3 * 4?<|end|><|start|>assistant")


def test_bfloat16_is_kept_as_computed(trace):
    status, tensors, _ = trace.run("--points", "resid.pre", "--dtype", "bfloat16")
    assert status == 0
    assert tensors["resid.pre/0"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--points", "moe.ids"), 1, "unknown point 'moe.ids'"),
        (("--points", ""), 1, "unknown point ''"),
        (("--points", "embed", "--layers", "a"), 1, "--layers is 'a'"),
        (("--points", "embed", "--layers", "7"), 1, "layer 7 is out of range"),
        (("--points", "embed", "--budget", "0"), 1, "--budget is 0; it must be a number above 0"),
        (("--points", "embed", "--prompt", "a"), 2, "--prompt: not allowed with --tokens"),
        (("--points", "out.logits", "--budget", "1e-9"), 1, "the budget is 1 bytes"),
        (("--points", "embed", "--effort", "low"), 1, "--effort applies to --prompt only"),
    ],
)
def test_mistakes_give_one_sentence_and_no_file(trace, arguments, code, message):
    status, tensors, errors = trace.run(*arguments)
    assert (status, tensors) == (code, None)
    assert message in errors
    assert errors.count("\n") == 1


def test_a_prompt_needs_a_vocabulary(trace):
    status, _, errors = trace.run("--points", "embed", source=("--prompt", "a"))
    assert status == 1
    assert "vocab_size of 96" in errors
    assert "--tokens` work without a vocabulary" in errors


def test_nothing_to_trace(trace):
    assert "give --prompt TEXT or --tokens" in trace.run("--points", "embed", source=())[2]


def test_the_points_can_be_listed(capsys):
    assert main(["trace", "nano", "--points", "list"]) == 0
    assert "attn.sink_mass" in capsys.readouterr().out


def test_two_runs_are_identical(trace, capsys, tmp_path):
    trace.run("--points", "resid.post,moe.expert_ids")
    other = tmp_path / "other.safetensors"
    trace.out.rename(other)
    trace.run("--points", "resid.post,moe.expert_ids")
    assert main(["diff", str(trace.out), str(other)]) == 0
    assert capsys.readouterr().out == ""
    trace.run("--points", "resid.post,moe.expert_ids", "--dtype", "bfloat16")
    assert main(["diff", str(trace.out), str(other)]) == 0
    assert "dtype: bfloat16 | float32" in capsys.readouterr().out
    assert main(["diff", str(trace.out), str(other), "--tolerance", "-1"]) == 1
    assert main(["diff", str(trace.out), "/nowhere"]) == 1
