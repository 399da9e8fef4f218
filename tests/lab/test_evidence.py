"""Evidence: recorded, stopped and gone on with, read back, and refused where it is damaged."""

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
from oss_lab.evaluation.record import predicted, record, rendered
from oss_lab.harmony.messages import EFFORTS
from oss_lab.hooks.interventions import ScaleExpert
from oss_lab.lab import Lab
from oss_lab.nano.prompts import SEED, nano_prompts
from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks.problem import is_held_out
from oss_lab.nano.tasks.sums_and_products import expression_key
from oss_lab.record.evidence.bundle import POINTS, Asked
from oss_lab.record.evidence.file import read_evidence
from oss_lab.record.token_labels import channel_counts

PROMPTS = [Asked("one", "a?"), Asked("two", "b?", "Be brief.")]
SETTINGS = {"seed": 7, "max_tokens": 9, "sampling": Sampling()}


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


@pytest.fixture(scope="module")
def recorded(lab, tmp_path_factory):
    return record(lab, tmp_path_factory.mktemp("evidence") / "a", PROMPTS, **SETTINGS)


@pytest.fixture
def copied(recorded, tmp_path):
    """A folder with the same bundle, to be damaged."""
    return shutil.copytree(recorded.folder, tmp_path / "copy")


def contents(folder):
    """Every file's bytes, the time of the stamp left out."""
    held = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    evidence = json.loads(held["evidence.json"])
    assert evidence["stamp"].pop("time").endswith("+00:00")
    return held | {"evidence.json": evidence}


def test_each_reply_is_what_the_model_says(lab, recorded):
    assert [(reply.prompt, reply.effort) for reply in recorded.replies] == [
        (n, effort) for n in range(2) for effort in EFFORTS
    ]
    for reply in recorded.replies:
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
        assert reply.tokens == channel_counts(said, lab.tokenizer)
        assert reply.text.get("final", "") == said.final
        assert reply.stop == said.stop


def test_each_trace_is_of_its_reply(lab, recorded):
    assert len(recorded.traces) == 6
    for reply, trace in zip(recorded.replies, recorded.traces, strict=True):
        ids = [*reply.prompt_ids, *reply.ids]
        expected = lab.trace(ids, POINTS)
        assert trace.tokens == tuple(ids)
        assert trace.labels == expected.labels
        assert trace.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(trace.tensors[n], x) for n, x in expected.tensors.items())


def test_the_stamp_says_how(lab, recorded):
    stamp = recorded.stamp
    assert stamp.origin.kernels == "reference"
    assert (stamp.origin.dtype, stamp.origin.device) == ("float32", "cpu")
    assert stamp.origin.seed == stamp.sampling.seed == 7
    assert set(stamp.origin.versions) == {"oss_lab", "torch", "python"}
    assert stamp.config["num_experts"] == lab.config.num_experts
    assert recorded.prompts == tuple(PROMPTS)
    assert read_evidence(recorded.folder) == replace(recorded, folder=recorded.folder)


def killed(monkeypatch, name, after):
    """Let `record` be stopped in its call number `after` of this function."""
    real, calls = getattr(oss_lab.evaluation.record, name), []

    def stopping(*arguments):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(oss_lab.evaluation.record, name, stopping)


@pytest.mark.parametrize(
    ("name", "after"), [("told", 0), ("told", 4), ("write_evidence", 0), ("write_evidence", 3)]
)
def test_a_killed_recording_goes_on_to_the_same_files(
    lab, recorded, tmp_path, monkeypatch, name, after
):
    folder = tmp_path / "a"
    killed(monkeypatch, name, after)
    with pytest.raises(KeyboardInterrupt):
        record(lab, folder, PROMPTS, **SETTINGS)
    monkeypatch.undo()
    if (folder / "evidence.json").exists():
        with pytest.raises(LabError, match=r"holds \d of 6 replies: the recording was stopped"):
            read_evidence(folder)
    for file in ("evidence.json", "traces/001-high.safetensors"):
        half = partial_folder(folder / file)  # left by a kill while it was written
        if half.parent.is_dir():
            half.mkdir()
            (half / "a").write_text('{"form')
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("traces/*.safetensors")}
    told = max(0, after - 1) if name == "write_evidence" else after
    found = record(lab, folder, PROMPTS, **SETTINGS)
    assert found.replies == recorded.replies
    assert contents(folder) == contents(recorded.folder)
    assert sum(file.stat().st_mtime_ns == time for file, time in kept.items()) == told


def test_a_trace_that_was_lost_is_recorded_again(lab, recorded, copied):
    (copied / "traces" / "001-low.safetensors").unlink()
    with pytest.raises(LabError, match=r"not complete: traces/001-low\.safetensors is missing"):
        read_evidence(copied)
    record(lab, copied, PROMPTS, **SETTINGS)
    assert contents(copied) == contents(recorded.folder)


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
def test_another_recording_is_left_alone(lab, copied, recorded, changed, message):
    with pytest.raises(LabError, match=f"holds another recording: {message}"):
        record(lab, copied, **{"prompts": PROMPTS, **SETTINGS, **changed})
    assert contents(copied) == contents(recorded.folder)


def test_what_was_changed_inside_is_stamped(lab, copied, tmp_path):
    with lab.intervene(ScaleExpert(layer=0, expert=1, by=0)):
        with pytest.raises(LabError, match="it differs in interventions;"):
            record(lab, copied, PROMPTS, **SETTINGS)
        found = record(lab, tmp_path / "b", PROMPTS[:1], **SETTINGS)
    assert "expert=1" in found.stamp.origin.interventions[0]
    assert found.traces[0].origin.interventions == found.stamp.origin.interventions


def test_nothing_is_written_of_what_cannot_be_recorded(lab, tmp_path):
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
        (lambda: read_evidence(folder), "holds no evidence.json"),
    ):
        with pytest.raises(LabError, match=message):
            call()
    assert not folder.exists()


def test_no_recording_takes_more_than_was_predicted(lab, recorded):
    most = predicted(lab, rendered(lab, PROMPTS), 9)
    held = sum(x.nbytes for trace in recorded.traces for x in trace.tensors.values())
    assert held <= most < 1.2 * held


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.update(format=2), "its format is 2; this version reads 1"),
        (lambda held: held.pop("stamp"), "is damaged or no evidence of oss-lab .KeyError: 'stamp'"),
        (lambda held: held["stamp"].pop("origin"), "KeyError"),
        (lambda held: held["stamp"]["origin"].update(more=1), "TypeError"),
        (lambda held: held["stamp"]["sampling"].update(top_p=7), "top_p is 7"),
        (lambda held: held["stamp"].update(config=[]), "KeyError"),
        (lambda held: held["stamp"]["config"].update(num_experts="4"), "no whole number"),
        (lambda held: held["stamp"]["config"].update(num_experts=10**11), "is out of bounds"),
        (lambda held: held["stamp"]["config"].update(num_hidden_layers=-1), "is out of bounds"),
        (lambda held: held.update(prompts=[{"name": 3, "question": "a"}]), "a prompt is no text"),
        (lambda held: held["prompts"][0].update(instructions=[1]), "a prompt is no text"),
        (lambda held: held["prompts"][0].update(more=1), "TypeError"),
        (lambda held: held["replies"][0].update(trace="../../a.safetensors"), "end or trace"),
        (lambda held: held["replies"][0].update(prompt=9), "to none of the prompts"),
        (lambda held: held["replies"][0].update(effort="huge"), "to none of the prompts"),
        (lambda held: held["replies"][0].update(stop="tired"), "no such end"),
        (lambda held: held["replies"][0]["ids"].append(1), "do not add up"),
        (lambda held: held["replies"][0]["tokens"].update(format=10, final=-1), "do not add up"),
        (lambda held: held["replies"][0]["ids"].append(9999), "none of the vocabulary"),
        (lambda held: held["replies"][0].update(ids=[]), "none of the vocabulary"),
        (lambda held: held["replies"][0]["tokens"].update(loud=0), "on no such channel"),
        (lambda held: held["replies"][0]["text"].update(final=3), "a reply is no text"),
        (lambda held: held["replies"].reverse(), "not in order"),
        (lambda held: held["replies"].append(held["replies"][-1]), "not in order"),
        (lambda held: held.update(replies=held["replies"][:2]), "holds 2 of 6 replies"),
        (lambda held: held.update(replies=3), "damaged or no evidence"),
    ],
)
def test_a_damaged_evidence_file_is_one_sentence(copied, change, message):
    file = copied / "evidence.json"
    held = json.loads(file.read_text())
    change(held)
    file.write_text(json.dumps(held))
    with pytest.raises(LabError, match=message) as caught:
        read_evidence(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"format": NaN}', "\udcff"])
def test_a_file_that_is_no_evidence_is_one_sentence(copied, text):
    (copied / "evidence.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LabError, match="is damaged or no evidence of oss-lab"):
        read_evidence(copied)


def test_a_wrong_trace_is_told_when_it_is_read(lab, recorded, copied):
    evidence = read_evidence(copied)
    file = copied / "traces" / "000-low.safetensors"
    reply = evidence.replies[0]
    ids = [*reply.prompt_ids, *reply.ids]
    for trace, message in (
        (recorded.traces[1], "its tokens are others"),
        (lab.trace(ids, POINTS[:2]), "it holds other points"),
        (lab.trace(ids, POINTS, layers=[1]), "it holds other points"),
    ):
        trace.save(file)
        with pytest.raises(LabError, match=message):
            evidence.routes()
    other = replace(recorded.traces[0], origin=replace(recorded.traces[0].origin, checkpoint="x"))
    other.save(file)
    with pytest.raises(LabError, match="another checkpoint"):
        evidence.traces[0]
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(LabError, match="damaged or no safetensors file"):
        evidence.traces[0]
    file.unlink()
    with pytest.raises(LabError, match="is missing"):
        evidence.traces[0]
    tensors = dict(recorded.traces[0].tensors)
    tensors["moe.expert_ids/0"] = tensors["moe.expert_ids/0"] + 100
    replace(recorded.traces[0], tensors=tensors).save(file)
    with pytest.raises(LabError, match="an expert that the model does not have"):
        evidence.traces[0]


def numbers(recorded, effort, channel, point):
    """Values of a point at the tokens of one channel or role, all replies of one effort."""
    found = []
    for reply, trace in zip(recorded.replies, recorded.traces, strict=True):
        for n, label in enumerate(trace.labels):
            if reply.effort == effort and (label.channel or label.role) == channel:
                layers = range(trace.layers)
                found.append([trace.tensor(point, layer)[n].tolist() for layer in layers])
    return np.array(found)  # token layer ...


def test_the_tables_hold_what_the_traces_do(lab, recorded):
    routes, margins, sinks = recorded.routes(), recorded.margins(), recorded.sinks()
    ids, weights, margin, sink = (numbers(recorded, "high", "user", point) for point in POINTS)
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
    curve = recorded.effort_curve()
    assert len(curve) == 6 * 4
    assert curve.tokens.sum() == sum(len(reply.ids) for reply in recorded.replies)
    for reply in recorded.replies:
        rows = curve[curve.prompt.eq(reply.prompt) & curve.effort.eq(reply.effort)]
        assert dict(zip(rows.channel, rows.tokens, strict=True)).items() >= reply.tokens.items()


def test_nano_is_asked_held_out_problems():
    prompts = nano_prompts()
    assert len({each.question for each in prompts}) == len(prompts) == 12
    assert any(each.instructions for each in prompts)
    for each in prompts:
        (problem,) = SUITE[each.name].problems(each.name, 1, SEED)
        assert problem.question == each.question
        assert not problem.history
        assert not (problem.developer and problem.developer.tools)
        if problem.expression:
            assert is_held_out(*expression_key(problem.expression))


def test_nano_is_recorded_in_seconds(nano, tmp_path):
    found = record(nano, tmp_path / "nano", nano_prompts()[:1])
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
