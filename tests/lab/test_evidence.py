"""Evidence: recorded, interrupted and resumed, read back, and refused if damaged."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import oss_lab
import oss_lab.evaluation.record
from oss_lab.checkpoint.atomic import partial_folder
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.config import GPT_OSS_20B
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError
from oss_lab.evaluation.prompts import GENERAL
from oss_lab.evaluation.record import build_conversations, predict_bytes, record
from oss_lab.harmony.messages import EFFORTS
from oss_lab.hooks.interventions import ScaleExpert
from oss_lab.lab import Lab
from oss_lab.nano.prompts import SEED, draw_nano_prompts
from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks.problem import is_held_out
from oss_lab.nano.tasks.sums_and_products import expression_key
from oss_lab.record.evidence.bundle import POINTS, RecordedPrompt
from oss_lab.record.evidence.file import read_evidence
from oss_lab.record.token_labels import count_channel_tokens

PROMPTS = [RecordedPrompt("one", "a?"), RecordedPrompt("two", "b?", "Be brief.")]
SETTINGS = {"seed": 7, "max_tokens": 9, "sampling": Sampling()}


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


@pytest.fixture(scope="module")
def evidence(lab, tmp_path_factory):
    return record(lab, tmp_path_factory.mktemp("evidence") / "a", PROMPTS, **SETTINGS)


@pytest.fixture
def damaged_copy(evidence, tmp_path):
    """A copy of the folder that a test may damage."""
    return shutil.copytree(evidence.folder, tmp_path / "copy")


def read_files(folder):
    """The bytes of every file, without the time of the stamp."""
    held = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    evidence = json.loads(held["evidence.json"])
    assert evidence["stamp"].pop("time").endswith("+00:00")
    return held | {"evidence.json": evidence}


def test_each_reply_is_the_models_reply(lab, evidence):
    assert [(reply.prompt, reply.effort) for reply in evidence.replies] == [
        (n, effort) for n in range(2) for effort in EFFORTS
    ]
    for reply in evidence.replies:
        asked = PROMPTS[reply.prompt]
        said = lab.chat(
            asked.question,
            effort=reply.effort,
            instructions=asked.instructions,
            sampling=Sampling(),
            seed=7,
            max_tokens=9,
        )
        assert (reply.prompt_ids, reply.ids) == (said.prompt_tokens, said.ids)
        assert reply.tokens == count_channel_tokens(said, lab.tokenizer)
        assert reply.text.get("final", "") == said.final
        assert reply.stop == said.stop


def test_each_trace_is_of_its_reply(lab, evidence):
    assert len(evidence.traces) == 6
    for reply, trace in zip(evidence.replies, evidence.traces, strict=True):
        ids = [*reply.prompt_ids, *reply.ids]
        expected = lab.trace(ids, POINTS)
        assert trace.tokens == tuple(ids)
        assert trace.labels == expected.labels
        assert trace.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(trace.tensors[n], x) for n, x in expected.tensors.items())


def test_the_stamp_holds_the_settings(lab, evidence):
    stamp = evidence.stamp
    assert stamp.origin.kernels == "reference"
    assert (stamp.origin.dtype, stamp.origin.device) == ("float32", "cpu")
    assert stamp.origin.seed == stamp.sampling.seed == 7
    assert set(stamp.origin.versions) == {"oss_lab", "torch", "python"}
    assert stamp.config["num_experts"] == lab.config.num_experts
    assert evidence.prompts == tuple(PROMPTS)
    assert read_evidence(evidence.folder) == replace(evidence, folder=evidence.folder)


def stop_record(monkeypatch, name, after):
    """Interrupt `record` at its call number `after` of the named function."""
    real, calls = getattr(oss_lab.evaluation.record, name), []

    def stop_or_call(*arguments):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(oss_lab.evaluation.record, name, stop_or_call)


@pytest.mark.parametrize(
    ("name", "after"),
    [("summarize_reply", 0), ("summarize_reply", 4), ("write_evidence", 0), ("write_evidence", 3)],
)
def test_a_killed_recording_resumes_to_the_same_files(
    lab, evidence, tmp_path, monkeypatch, name, after
):
    folder = tmp_path / "a"
    stop_record(monkeypatch, name, after)
    with pytest.raises(KeyboardInterrupt):
        record(lab, folder, PROMPTS, **SETTINGS)
    monkeypatch.undo()
    if (folder / "evidence.json").exists():
        with pytest.raises(
            LabError, match=r"contains \d of 6 replies: the recording was interrupted"
        ):
            read_evidence(folder)
    for file in ("evidence.json", "traces/001-high.safetensors"):
        half = partial_folder(folder / file)  # as left by a kill during writing
        if half.parent.is_dir():
            half.mkdir()
            (half / "a").write_text('{"form')
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("traces/*.safetensors")}
    unchanged = max(0, after - 1) if name == "write_evidence" else after
    found = record(lab, folder, PROMPTS, **SETTINGS)
    assert found.replies == evidence.replies
    assert read_files(folder) == read_files(evidence.folder)
    assert sum(file.stat().st_mtime_ns == time for file, time in kept.items()) == unchanged


def test_a_lost_trace_is_recorded_again(lab, evidence, damaged_copy):
    (damaged_copy / "traces" / "001-low.safetensors").unlink()
    with pytest.raises(LabError, match=r"incomplete: traces/001-low\.safetensors is missing"):
        read_evidence(damaged_copy)
    record(lab, damaged_copy, PROMPTS, **SETTINGS)
    assert read_files(damaged_copy) == read_files(evidence.folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 8}, "it differs in seed;"),
        ({"max_tokens": 8}, "it differs in max_tokens;"),
        ({"sampling": GREEDY}, "it differs in temperature;"),
        ({"prompts": ["a?"]}, "it differs in prompts;"),
        ({"name": "other"}, "it differs in model;"),
    ],
)
def test_another_recording_is_not_changed(lab, damaged_copy, evidence, changed, message):
    with pytest.raises(LabError, match=f"holds another recording: {message}"):
        record(lab, damaged_copy, **{"prompts": PROMPTS, **SETTINGS, **changed})
    assert read_files(damaged_copy) == read_files(evidence.folder)


def test_active_interventions_are_stamped(lab, damaged_copy, tmp_path):
    with lab.intervene(ScaleExpert(layer=0, expert=1, by=0)):
        with pytest.raises(LabError, match="it differs in interventions;"):
            record(lab, damaged_copy, PROMPTS, **SETTINGS)
        found = record(lab, tmp_path / "b", PROMPTS[:1], **SETTINGS)
    assert "expert=1" in found.stamp.origin.interventions[0]
    assert found.traces[0].origin.interventions == found.stamp.origin.interventions


def test_nothing_is_written_if_recording_is_impossible(lab, tmp_path):
    folder = tmp_path / "a"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for call, message in (
        (lambda: record(lab, folder, []), "there is no prompt"),
        (lambda: record(lab, folder, PROMPTS, max_tokens=0), "max_tokens is 0"),
        (lambda: record(lab, folder, PROMPTS, budget=99), "6 replies may take .* is 99 bytes"),
        (lambda: record(lab, folder, ["a" * 9000]), "prompt 0 has .* no room for an answer"),
        (lambda: record(lab, folder, PROMPTS, seed=-1), "seed is -1"),
        (lambda: record(lab, tmp_path / "mine", PROMPTS), "is not empty and holds no evidence"),
        (lambda: read_evidence(folder), "contains no evidence.json"),
    ):
        with pytest.raises(LabError, match=message):
            call()
    assert not folder.exists()


def test_a_recording_is_not_larger_than_predicted(lab, evidence):
    most = predict_bytes(lab, build_conversations(lab, PROMPTS), 9)
    held = sum(x.nbytes for trace in evidence.traces for x in trace.tensors.values())
    assert held <= most < 1.2 * held


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.update(format=2), "its format is 2; this version reads 1"),
        (
            lambda held: held.pop("stamp"),
            "is damaged or was not written by oss-lab .KeyError: 'stamp'",
        ),
        (lambda held: held["stamp"].pop("origin"), "KeyError"),
        (lambda held: held["stamp"]["origin"].update(more=1), "TypeError"),
        (lambda held: held["stamp"]["sampling"].update(top_p=7), "top_p is 7"),
        (lambda held: held["stamp"].update(config=[]), "KeyError"),
        (lambda held: held["stamp"]["config"].update(num_experts="4"), "not an integer"),
        (lambda held: held["stamp"]["config"].update(num_experts=10**11), "is out of bounds"),
        (lambda held: held["stamp"]["config"].update(num_hidden_layers=-1), "is out of bounds"),
        (lambda held: held.update(prompts=[{"name": 3, "question": "a"}]), "a prompt is not text"),
        (lambda held: held["prompts"][0].update(instructions=[1]), "a prompt is not text"),
        (lambda held: held["prompts"][0].update(more=1), "TypeError"),
        (lambda held: held["replies"][0].update(trace="../../a.safetensors"), "wrong trace file"),
        (lambda held: held["replies"][0].update(prompt=9), "unknown prompt or effort"),
        (lambda held: held["replies"][0].update(effort="huge"), "unknown prompt or effort"),
        (lambda held: held["replies"][0].update(stop="tired"), "unknown stop reason"),
        (lambda held: held["replies"][0]["ids"].append(1), "do not add up"),
        (lambda held: held["replies"][0]["tokens"].update(format=10, final=-1), "do not add up"),
        (lambda held: held["replies"][0]["ids"].append(9999), "not in the vocabulary"),
        (lambda held: held["replies"][0].update(ids=[]), "not in the vocabulary"),
        (lambda held: held["replies"][0]["tokens"].update(loud=0), "unknown channel"),
        (lambda held: held["replies"][0]["text"].update(final=3), "a reply is not text"),
        (lambda held: held["replies"].reverse(), "not in order"),
        (lambda held: held["replies"].append(held["replies"][-1]), "not in order"),
        (lambda held: held.update(replies=held["replies"][:2]), "contains 2 of 6 replies"),
        (lambda held: held.update(replies=3), "damaged or was not written"),
    ],
)
def test_a_damaged_evidence_file_is_one_sentence(damaged_copy, change, message):
    file = damaged_copy / "evidence.json"
    held = json.loads(file.read_text())
    change(held)
    file.write_text(json.dumps(held))
    with pytest.raises(LabError, match=message) as caught:
        read_evidence(damaged_copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"format": NaN}', "\udcff"])
def test_a_file_that_is_not_evidence_is_refused_in_one_sentence(damaged_copy, text):
    (damaged_copy / "evidence.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LabError, match="is damaged or was not written by oss-lab"):
        read_evidence(damaged_copy)


def test_a_wrong_trace_is_reported_when_it_is_read(lab, evidence, damaged_copy):
    damaged = read_evidence(damaged_copy)
    file = damaged_copy / "traces" / "000-low.safetensors"
    reply = damaged.replies[0]
    ids = [*reply.prompt_ids, *reply.ids]
    for trace, message in (
        (evidence.traces[1], "the tokens differ"),
        (lab.trace(ids, POINTS[:2]), "the points, layers, heads or positions differ"),
        (lab.trace(ids, POINTS, layers=[1]), "the points, layers, heads or positions differ"),
    ):
        trace.save(file)
        with pytest.raises(LabError, match=message):
            damaged.routes()
    other = replace(evidence.traces[0], origin=replace(evidence.traces[0].origin, checkpoint="x"))
    other.save(file)
    with pytest.raises(LabError, match="the checkpoints differ"):
        damaged.traces[0]
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(LabError, match="damaged or not a safetensors file"):
        damaged.traces[0]
    file.unlink()
    with pytest.raises(LabError, match="is missing"):
        damaged.traces[0]
    tensors = dict(evidence.traces[0].tensors)
    tensors["moe.expert_ids/0"] = tensors["moe.expert_ids/0"] + 100
    replace(evidence.traces[0], tensors=tensors).save(file)
    with pytest.raises(LabError, match="an expert id that the model does not have"):
        damaged.traces[0]


def collect_values(evidence, effort, channel, point):
    """The values of a point at the tokens of one channel or role, in all replies at one effort."""
    found = []
    for reply, trace in zip(evidence.replies, evidence.traces, strict=True):
        for n, label in enumerate(trace.labels):
            if reply.effort == effort and (label.channel or label.role) == channel:
                layers = range(trace.layers)
                found.append([trace.tensor(point, layer)[n].tolist() for layer in layers])
    return np.array(found)  # token layer ...


def test_the_tables_match_the_traces(lab, evidence):
    routes, margins, sinks = evidence.routes(), evidence.margins(), evidence.sinks()
    ids, weights, margin, sink = (
        collect_values(evidence, "high", "user", point) for point in POINTS
    )
    row = routes[routes.layer.eq(1) & routes.effort.eq("high") & routes.channel.eq("user")]
    assert row.expert.tolist() == list(range(lab.config.num_experts))
    assert row.choices.tolist() == np.bincount(ids[:, 1].ravel(), minlength=len(row)).tolist()
    assert row.share.sum() == pytest.approx(1)
    for expert, weight in enumerate(row.weight):
        assert weight == pytest.approx(weights[:, 1][ids[:, 1] == expert].mean(), nan_ok=True)
    row = margins[margins.layer.eq(0) & margins.effort.eq("high") & margins.channel.eq("user")]
    assert row.tokens.item() == len(margin)
    assert row["mean"].item() == pytest.approx(margin[:, 0].mean())
    assert row["median"].item() == pytest.approx(np.median(margin[:, 0]))
    assert row["low"].item() < row["median"].item() < row["high"].item()
    row = sinks[sinks.layer.eq(1) & sinks.effort.eq("high") & sinks.channel.eq("user")]
    np.testing.assert_allclose(row["mean"], sink[:, 1].mean(0), rtol=1e-5)
    np.testing.assert_allclose(row["std"], sink[:, 1].std(0), rtol=1e-3, atol=1e-6)
    curve = evidence.effort_curve()
    assert len(curve) == 6 * 4
    assert curve.tokens.sum() == sum(len(reply.ids) for reply in evidence.replies)
    for reply in evidence.replies:
        rows = curve[curve.prompt.eq(reply.prompt) & curve.effort.eq(reply.effort)]
        assert dict(zip(rows.channel, rows.tokens, strict=True)).items() >= reply.tokens.items()


def test_nano_is_asked_held_out_problems():
    prompts = draw_nano_prompts()
    assert len({each.question for each in prompts}) == len(prompts) == 12
    assert any(each.instructions for each in prompts)
    for each in prompts:
        (problem,) = SUITE[each.name].draw_problems(each.name, 1, SEED)
        assert problem.question == each.question
        assert not problem.history
        assert not (problem.developer and problem.developer.tools)
        if problem.expression:
            assert is_held_out(*expression_key(problem.expression))


def test_nano_is_recorded_in_seconds(nano, tmp_path):
    found = record(nano, tmp_path / "nano", draw_nano_prompts()[:1])
    assert found.stamp.model == "nano"
    assert found.stamp.origin.checkpoint == nano.digest
    assert all(reply.stop == "return" for reply in found.replies)
    said = nano.chat(found.prompts[0].question, effort="high")
    assert found.replies[2].text == {"analysis": said.analysis, "final": said.final}
    curve = found.effort_curve().groupby(["effort", "channel"]).tokens.sum()
    assert curve["low", "analysis"] == 0 < curve["medium", "analysis"] < curve["high", "analysis"]


def test_a_model_with_the_published_vocabulary_is_asked_general_prompts(
    vocab_folder, monkeypatch, tmp_path, tiny_config
):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocab_folder))
    config = replace(tiny_config, vocab_size=GPT_OSS_20B.vocab_size)
    write_checkpoint(tmp_path / "tiny", config, random_tensors(config))
    lab = oss_lab.load(tmp_path / "tiny", verbose=False)
    found = record(lab, tmp_path / "evidence", GENERAL[::9], max_tokens=3)
    assert len(found.replies) == 6
    assert found.stamp.model == "tiny"
    assert found.traces[5]["moe.expert_ids"].dims == ("layer", "seq", "slot")
