"""Traces: named axes, selections, chunks, cost; what cannot be traced is one sentence."""

from dataclasses import replace

import pytest
import torch

import oss_lab.engine.generate
from oss_lab.engine.generate import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.recording import AllZeroWarning
from oss_lab.lab import Lab

SEQ = 40
ALL = list(POINTS)


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


@pytest.fixture(scope="module")
def whole(lab):
    return lab.trace(range(SEQ), ALL)


@pytest.mark.parametrize("name", POINTS)
def test_axes_are_those_of_the_table(lab, whole, name):
    point, config = POINTS[name], lab.config
    sizes = {axis: point.size(axis, config, SEQ) for axis in point.axes}
    layers = {"layer": config.num_hidden_layers} if point.layered else {}
    assert dict(whole[name].sizes) == layers | sizes
    assert whole[name].dims == (*layers, *point.axes)


def test_a_long_sequence_in_chunks_is_the_same_trace(lab, whole, monkeypatch):
    monkeypatch.setattr(oss_lab.engine.generate, "PREFILL_CHUNK", 7)
    chunked = lab.trace(range(SEQ), ALL)
    for layer in range(2):
        assert torch.equal(*(t.tensor("moe.expert_ids", layer) for t in (whole, chunked)))
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(chunked.tensors[name], tensor, atol=2e-5, rtol=1e-4, msg=name)


def test_selections_are_parts_of_the_whole(lab, whole):
    part = lab.trace(range(SEQ), ALL, layers=[1], heads=[0, 3], positions=[5, 39])
    group = lab.config.num_attention_heads // lab.config.num_key_value_heads
    for name, point in POINTS.items():
        expected = whole[name]
        if point.layered:
            expected = expected.sel(layer=[1])
        if "seq" in point.axes:
            expected = expected.sel(seq=[5, 39])
        if "head" in point.axes:
            expected = expected.isel(head=[0, 3])
        if "kv_head" in point.axes:
            expected = expected.isel(kv_head=sorted({0, 3 // group}))
        assert part[name].dims == expected.dims
        assert (part[name].values == expected.values).all(), name


def test_a_trace_covers_prompt_and_reply_and_knows_their_channels(lab):
    reply = lab.chat("a", max_tokens=5)
    tokens = [*reply.prompt_tokens, *reply.ids]
    traced = lab.trace(reply, ["out.logits", "moe.expert_ids"])
    assert traced["moe.expert_ids"].sizes["seq"] == len(tokens)
    assert traced["moe.expert_ids"].token.values.tolist() == tokens
    assert traced["moe.expert_ids"].role.values.tolist().count("user") > 2
    torch.testing.assert_close(traced.tensor("out.logits"), lab.logits(tokens), atol=1e-4, rtol=0)


def test_channels_select_whole_messages(lab, tiny):
    text = (
        "<|start|>user<|message|>hi<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>xy<|end|>"
        "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}<|call|>"
    )
    tokens = tiny.encode(text, allowed_special="all")
    traced = lab.trace(tokens, ["moe.margin"], channels=["analysis"])["moe.margin"]
    assert set(traced.channel.values) == {"analysis"}
    assert "".join(traced.text.values[traced.part.values == "content"]) == "xy"
    called = lab.trace(tokens, ["moe.margin"], channels=["commentary"])["moe.margin"]
    assert set(called.recipient.values) == {"functions.f"}
    with pytest.raises(LabError, match="no token is on final; the channels here are analysis"):
        lab.trace(tokens, ["moe.margin"], channels=["final"])


def test_recording_leaves_logits_bit_identical(lab):
    plain = lab.logits(range(SEQ))
    assert torch.equal(lab.trace(range(SEQ), ALL).tensor("out.logits"), plain)


def test_what_is_recorded_while_writing_is_what_a_trace_shows(lab):
    points = [name for name in ALL if not name.startswith("out.") or name == "out.layer_logits"]
    plain = lab.chat("a", max_tokens=6)
    reply = lab.chat("a", max_tokens=6, points=points)
    assert (reply.ids, plain.trace) == (plain.ids, None)
    assert [t.logprob for t in reply.tokens] == [t.logprob for t in plain.tokens]
    tokens = [*reply.prompt_tokens, *reply.ids][:-1]
    again = lab.trace(tokens, points)
    assert (reply.trace.tokens, reply.trace.labels) == (again.tokens, again.labels)
    for name, tensor in again.tensors.items():
        torch.testing.assert_close(
            reply.trace.tensors[name], tensor, atol=2e-5, rtol=1e-3, msg=name
        )
    with pytest.raises(LabError, match=r"out\.top_ids is not there for every token"):
        lab.chat("a", max_tokens=2, points=["out.top_ids"])


def test_a_plan_is_exact_in_bytes(lab, whole):
    assert lab.plan(range(SEQ), ALL).total == sum(x.nbytes for x in whole.tensors.values())
    some = {"layers": [0], "heads": [1, 2], "positions": [3]}
    part = lab.trace(range(SEQ), ALL, **some)
    planned = lab.plan(range(SEQ), ALL, **some)
    assert planned.total == sum(x.nbytes for x in part.tensors.values())
    assert planned.seconds > 0
    assert str(planned).endswith(" s")


def test_a_budget_is_kept(lab):
    with pytest.raises(LabError, match=r"of it attn\.scores, and the budget is 1\.0 KiB: ask for"):
        lab.trace(range(SEQ), ["attn.scores", "moe.margin"], budget=1024)


def test_shares_of_a_bfloat16_model_are_finer_than_bfloat16(random_model, tiny_config, tiny):
    lab = Lab(random_model(replace(tiny_config, vocab_size=288)).bfloat16(), tiny, GREEDY)
    traced = lab.trace(range(SEQ), ["attn.sink_mass", "moe.expert_weights", "moe.expert_ids"])
    assert traced.tensor("attn.sink_mass", 0).dtype == torch.float16
    assert traced.tensor("moe.expert_weights", 0).dtype == torch.bfloat16
    assert traced["moe.expert_weights"].dtype == "float32"
    assert traced.tensor("moe.expert_ids", 0).dtype == torch.uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"points": ["moe.ids"]},
            r"no point 'moe\.ids', but moe\.expert_ids; the points are embed",
        ),
        ({"points": []}, "no point is asked for"),
        ({"layers": [2]}, "there is no layer 2; they are 0 to 1"),
        ({"layers": []}, "layers is empty; leave it out"),
        ({"heads": [-1]}, "there is no head -1"),
        ({"positions": [SEQ]}, f"there is no position {SEQ}"),
        ({"positions": [5, 3]}, "positions must rise, each given once; 3 does not"),
        ({"positions": [5, 5]}, "positions must rise"),
        ({"points": "embed"}, "points is one text; give a list"),
        ({"positions": [1], "channels": ["final"]}, "not both"),
    ],
)
def test_mistakes_are_one_sentence(lab, arguments, message):
    with pytest.raises(LabError, match=message):
        lab.trace(range(SEQ), **({"points": ["embed"]} | arguments))


def test_what_is_no_sequence_is_refused(lab):
    with pytest.raises(LabError, match="empty"):
        lab.trace([], ["embed"])
    with pytest.raises(LabError, match="id 288 at position 1"):
        lab.trace([1, 288], ["embed"])


def test_what_was_not_kept_is_named(whole, lab):
    part = lab.trace([1, 2], ["moe.margin"], layers=[1])
    with pytest.raises(LabError, match=r"holds no 'embed'; it holds moe\.margin"):
        part["embed"]
    with pytest.raises(LabError, match=r"holds no moe\.margin/0; it holds moe\.margin/1"):
        part.tensor("moe.margin", 0)


def test_broken_weights_are_told(random_model, tiny_config, tiny):
    model = random_model(replace(tiny_config, vocab_size=288))
    model.block[1].attn.sinks.data[0] = torch.nan
    with pytest.raises(LabError, match=r"attn\.sink_mass/1 holds NaN"):
        Lab(model, tiny, GREEDY).trace([1, 2], ["attn.sink_mass"])


def test_an_activation_that_is_zero_everywhere_is_warned_of(random_model, tiny_config, tiny):
    model = random_model(replace(tiny_config, vocab_size=288))
    lab = Lab(model, tiny, GREEDY)
    model.block[1].attn.out.weight.data.zero_()
    model.block[1].attn.out.bias.data.zero_()
    with pytest.warns(AllZeroWarning, match=r"attn\.out/1 is zero everywhere") as caught:
        lab.trace([1, 2, 3], ["attn.out", "attn.z", "attn.sink"])
    assert len(caught) == 1


def test_a_row_a_number_in_pandas(whole):
    table = whole.to_pandas("moe.expert_weights")
    assert len(table) == whole["moe.expert_weights"].size
    assert {"layer", "seq", "slot", "text", "channel", "moe.expert_weights"} <= set(table.columns)
