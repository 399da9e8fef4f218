"""A trace as a file: the same in a new process, and other files are refused."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AddVector
from oss_lab.hooks.points import POINTS
from oss_lab.lab import Lab
from oss_lab.record.diff import compare_traces
from oss_lab.record.trace import read_trace
from oss_lab.record.trace_file import ENTRY


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


@pytest.fixture
def saved(lab, tmp_path):
    """A reply's trace and the file it was saved to."""
    lab.digest = "ab12"
    trace = lab.trace(lab.chat("a", max_tokens=5), list(POINTS), positions=[3, 7], layers=[1])
    trace.save(tmp_path / "run.safetensors")
    return trace, tmp_path / "run.safetensors"


def test_a_saved_trace_is_read_back(saved):
    trace, file = saved
    read = read_trace(file)
    assert replace(read, tensors={}) == replace(trace, tensors={})
    assert read.tensors.keys() == trace.tensors.keys()
    assert all(torch.equal(read.tensors[name], x) for name, x in trace.tensors.items())
    assert read.origin.checkpoint == "ab12"
    assert list(compare_traces(trace, read)) == []


@pytest.mark.slow
def test_a_new_process_needs_no_model(saved):
    trace, file = saved
    code = f"""
from oss_lab.record.trace import read_trace
margin = read_trace({str(file)!r})["moe.margin"]
print(margin.dims, margin.seq.values.tolist(), float(margin[0, 1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(") ")[1] == f"[3, 7] {trace.tensor('moe.margin', 1)[1].item()}\n"


def test_names_and_shapes_in_the_file(saved):
    _, file = saved
    with safe_open(file, "pt") as opened:
        assert set(opened.metadata()) == {ENTRY}
        names = set(opened.keys())
        assert {"resid.pre/1", "moe.expert_ids/1", "out.logits", "embed"} <= names
        assert opened.get_slice("attn.q/1").get_shape()[0] == 2


def change_header(file, change):
    """The same file with a header modified by `change`."""
    with safe_open(file, "pt") as opened:
        head = json.loads(opened.metadata()[ENTRY])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change(head, tensors)
    save_file(tensors, file, {ENTRY: json.dumps(head)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head, _: head.update(format=2), "format 2; this version reads 1"),
        (lambda head, _: head.pop("tokens"), "cannot be read .KeyError: 'tokens'"),
        (lambda head, _: head.update(points=["no.such"]), "unknown point 'no.such'"),
        (lambda head, _: head["tokens"].append(1), "labels for"),
        (lambda head, _: head.update(positions=[3]), "has the wrong shape"),
        (lambda head, _: head.update(points=["embed"]), "is not in the header"),
        (lambda head, _: head.update(labels=[[1]] * len(head["tokens"])), "label"),
        (lambda head, _: head["origin"].update(more=1), "TypeError"),
        (lambda head, _: head["config"].update(more=1), "TypeError"),
        (lambda head, _: head.update(texts=[1]), "cannot be read"),
        (lambda head, _: head.update(model_layers=10**11, layers=None), "cannot be read"),
        (lambda head, _: head.update(model_layers=-1, layers=None), "cannot be read"),
        (lambda head, _: head.update(heads=[0]), "has the wrong shape"),
        (lambda head, _: head.update(heads=[-1, 0, 1, 2]), "a head number is out of range"),
        (lambda head, _: head.update(heads_per_kv_head=0), "a head number is out of range"),
        (lambda _, tensors: tensors.pop("embed"), "does not contain embed"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(saved, change, message):
    _, file = saved
    change_header(file, change)
    with pytest.raises(LabError, match=message):
        read_trace(file)


def test_other_files_are_refused(saved, tmp_path):
    _, file = saved
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(LabError, match=r"cut\.safetensors is damaged or not a safetensors file"):
        read_trace(cut)
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    with pytest.raises(LabError, match="but not a trace of oss-lab"):
        read_trace(weights)
    with pytest.raises(LabError, match=r"none\.safetensors does not exist"):
        read_trace(tmp_path / "none.safetensors")


def test_where_two_traces_differ(lab):
    points = ["moe.expert_ids", "resid.pre", "attn.pattern"]
    a, b = lab.trace([1, 2, 3, 4], points), lab.trace([1, 2, 9, 4, 5], points)
    lines = list(compare_traces(a, b))
    assert lines[0] == "tokens: first difference at position 2, of 4 | 5"
    found = dict(line.split(": ", 1) for line in compare_traces(a, b, tolerance=1e-5))
    assert found["resid.pre/0"].startswith("from position 2 on, 1 of 4 positions, at most ")
    assert found["attn.pattern/0"].startswith("from position 2 on, ")
    some = lab.trace([1, 2, 9, 4, 5], points, positions=[0, 2])
    assert list(compare_traces(a, some))[1].startswith(
        "positions or heads: the traces keep different"
    )
    b = lab.trace([1, 2, 9, 4], points)
    lines = dict(line.split(": ", 1) for line in compare_traces(a, b, tolerance=1e-5))
    assert lines["resid.pre/0"].startswith("from position 2 on, 1 of 4 positions, at most ")
    assert lines["attn.pattern/1"].startswith("from position 2 on, 2 of 4 positions")
    assert list(compare_traces(a, b, tolerance=1e9)) == lines_of_tokens(a, b)
    only = lab.trace([1, 2, 3, 4], points[:1])
    assert "resid.pre/0: only in the first" in list(compare_traces(a, only))


def lines_of_tokens(a, b):
    """Only the lines about tokens."""
    return [line for line in compare_traces(a, b) if line.startswith("tokens")]


def test_different_choices_are_reported_with_their_margin(lab):
    points = ["moe.expert_ids", "moe.margin", "moe.router_logits"]
    a = lab.trace(range(40), points)
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0)) * 0.02
    with lab.intervene(AddVector(point="resid.pre", layer=1, vector=noise)):
        b = lab.trace(range(40), points)
    (line,) = [line for line in compare_traces(a, b) if line.startswith("moe.expert_ids/1")]
    chosen = [np.sort(t.tensor("moe.expert_ids", 1).numpy(), -1) for t in (a, b)]
    other = (chosen[0] != chosen[1]).any(-1)
    assert 0 < other.sum() < 40
    margin = np.minimum(*(t.tensor("moe.margin", 1).numpy() for t in (a, b)))
    elsewhere = np.sort(margin[~other])[(len(margin[~other]) - 1) // 2]
    assert line.endswith(
        f"where the margin is at most {margin[other].max():.3g} (median elsewhere {elsewhere:.3g})"
    )
    plain = [lab.trace(range(40), points[:1]), b]
    assert "margin is" not in "\n".join(compare_traces(*plain))


def test_an_older_file_has_no_configuration(saved):
    trace, file = saved
    assert trace.config == read_trace(file).config
    assert set(trace.texts) == set(trace.tensor("out.top_ids").unique().tolist())

    def remove(head, _):
        del head["config"], head["texts"]

    change_header(file, remove)
    read = read_trace(file)
    assert (read.config, read.texts) == (None, {})
    assert read.tokens == trace.tokens
