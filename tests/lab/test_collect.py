"""Collections: resumable, within a budget, sampled. The folder of another collection is never
changed."""

from dataclasses import replace

import pytest
import torch

import oss_lab.analysis.collect
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AblateHead
from oss_lab.lab import Lab

POINTS = ["moe.expert_ids", "resid.post"]
PROMPTS = [range(n, n + 20) for n in range(6)]


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def test_a_killed_collection_resumes_without_loss(lab, tmp_path, monkeypatch):
    trace_requests, done = oss_lab.analysis.collect.trace_requests, []

    def collect_and_stop(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return trace_requests(*arguments)

    monkeypatch.setattr(oss_lab.analysis.collect, "trace_requests", collect_and_stop)
    with pytest.raises(KeyboardInterrupt):
        lab.collect(PROMPTS, POINTS, tmp_path / "a")
    made = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").glob("*.safetensors")}
    assert len(made) == 3
    monkeypatch.undo()
    found = lab.collect(PROMPTS, POINTS, tmp_path / "a")
    assert len(found) == 6
    assert {n: (tmp_path / "a" / n).stat().st_mtime_ns for n in made} == made
    for prompt, trace in zip(PROMPTS, found, strict=True):
        expected = lab.trace(prompt, POINTS)
        assert trace.tokens == tuple(prompt)
        assert all(torch.equal(trace.tensors[name], x) for name, x in expected.tensors.items())


def test_tokens_are_drawn_by_channel_and_seed(lab, tiny, tmp_path):
    text = (
        "<|start|>user<|message|>hello there<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>abcdefgh<|end|>"
    )
    talk = tiny.encode(text, allowed_special="all")
    options = {"channels": ["analysis"], "tokens_each": 4}
    found = lab.collect([talk, range(9)], POINTS, tmp_path / "a", **options)
    (trace,) = found
    assert len(trace.positions) == 4
    assert {label.channel for label in map(trace.labels.__getitem__, trace.positions)} == {
        "analysis"
    }
    again = lab.collect([talk, range(9)], POINTS, tmp_path / "b", **options)
    assert next(iter(again)).positions == trace.positions
    other = lab.collect([talk, range(9)], POINTS, tmp_path / "c", seed=1, **options)
    assert next(iter(other)).positions != trace.positions


def test_another_collection_is_not_changed(lab, tmp_path):
    lab.collect(PROMPTS[:1], POINTS, tmp_path / "a")
    with pytest.raises(LabError, match="another collection: it differs in points;"):
        lab.collect(PROMPTS[:1], POINTS[:1], tmp_path / "a")
    with pytest.raises(LabError, match="it differs in seed and corpus;"):
        lab.collect(PROMPTS[:2], POINTS, tmp_path / "a", seed=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(LabError, match="is not empty and holds no collection"):
        lab.collect(PROMPTS, POINTS, tmp_path / "mine")
    (tmp_path / "a" / "collection.json").write_text("{")
    with pytest.raises(LabError, match="is not JSON"):
        lab.collect(PROMPTS[:1], POINTS, tmp_path / "a")


def test_nothing_is_written_if_it_does_not_fit(lab, tmp_path):
    with pytest.raises(LabError, match=r"of 6 sequences take .* and the budget is 100 bytes"):
        lab.collect(PROMPTS, POINTS, tmp_path / "a", budget=100)
    with pytest.raises(LabError, match="layer 9 is out of range"):
        lab.collect(PROMPTS, POINTS, tmp_path / "a", layers=[9])
    with pytest.raises(LabError, match="tokens_each is 0"):
        lab.collect(PROMPTS, POINTS, tmp_path / "a", tokens_each=0)
    assert not (tmp_path / "a").exists()


def test_active_interventions_are_in_the_traces_and_in_the_folders_name(lab, tmp_path):
    silence = AblateHead(layer=0, head=0)
    with lab.intervene(silence):
        (trace,) = lab.collect(PROMPTS[:1], ["attn.z"], tmp_path / "a")
    assert not trace.tensor("attn.z", 0)[:, 0].any()
    assert trace.origin.interventions == (str(silence),)
    with pytest.raises(LabError, match="it differs in interventions"):
        lab.collect(PROMPTS[:1], ["attn.z"], tmp_path / "a")
