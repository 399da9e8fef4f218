"""Traces: named axes, selections, chunks, cost; what cannot be traced is refused in one
sentence.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oss_lab.engine import read
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.recording import AllZeroWarning
from oss_lab.hooks.selection import Selection
from oss_lab.lab import Lab
from oss_lab.record.trace import read_trace

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
    layers = {"layer": config.num_hidden_layers} if point.is_per_layer else {}
    assert dict(whole[name].sizes) == layers | sizes
    assert whole[name].dims == (*layers, *point.axes)


def test_a_long_sequence_in_chunks_is_the_same_trace(lab, whole, monkeypatch):
    monkeypatch.setattr(read, "PREFILL_CHUNK", 7)
    chunked = lab.trace(range(SEQ), ALL)
    for layer in range(2):
        assert torch.equal(*(t.tensor("moe.expert_ids", layer) for t in (whole, chunked)))
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(chunked.tensors[name], tensor, atol=2e-5, rtol=1e-4, msg=name)


def test_selections_are_parts_of_the_full_trace(lab, whole):
    part = lab.trace(range(SEQ), ALL, layers=[1], heads=[0, 3], positions=[5, 39])
    group = lab.config.num_attention_heads // lab.config.num_key_value_heads
    for name, point in POINTS.items():
        expected = whole[name]
        if point.is_per_layer:
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
    with pytest.raises(LabError, match="no token is on final; the channels present are analysis"):
        lab.trace(tokens, ["moe.margin"], channels=["final"])


def test_recording_leaves_logits_bit_identical(lab):
    plain = lab.logits(range(SEQ))
    assert torch.equal(lab.trace(range(SEQ), ALL).tensor("out.logits"), plain)


def test_values_recorded_during_generation_equal_a_trace(lab):
    plain = lab.chat("a", max_tokens=6)
    reply = lab.chat("a", max_tokens=6, points=ALL)
    assert (reply.ids, plain.trace) == (plain.ids, None)
    assert reply.logprobs == pytest.approx(plain.logprobs, abs=1e-5)
    tokens = [*reply.prompt_tokens, *reply.ids][:-1]
    again = lab.trace(tokens, ALL)
    assert (reply.trace.tokens, reply.trace.labels) == (again.tokens, again.labels)
    assert (reply.trace.selection, reply.trace.origin) == (again.selection, again.origin)
    assert reply.trace.tensors.keys() == again.tensors.keys()
    for name, tensor in again.tensors.items():
        torch.testing.assert_close(
            reply.trace.tensors[name], tensor, atol=2e-5, rtol=1e-3, msg=name
        )


def test_recording_inside_the_layers_leaves_a_reply_bit_identical(lab):
    inside = [name for name in ALL if POINTS[name].is_per_layer]
    plain, reply = lab.chat("a", max_tokens=6), lab.chat("a", max_tokens=6, points=inside)
    assert reply.tokens == plain.tokens


@pytest.mark.parametrize("name", POINTS)
def test_a_point_has_the_same_values_alone(lab, whole, name):
    alone = lab.trace(range(SEQ), [name])
    assert all(torch.equal(x, whole.tensors[key]) for key, x in alone.tensors.items())


def test_values_read_from_a_trace_are_copies_that_autograd_accepts(lab):
    traced = lab.trace(range(SEQ), ["resid.post", "out.logits"])
    for look in (
        lambda: traced["resid.post", 1],
        lambda: traced.tensor("resid.post", 1),
        lambda: torch.from_numpy(traced["resid.post"].values)[1],
        lambda: traced["out.logits", None],
        lambda: torch.from_numpy(traced["out.logits"].values),
    ):
        before = look()
        torch.nn.Linear(before.shape[-1], 1)(look()).sum().backward()
        look().zero_()
        assert before.any()
        assert torch.equal(look(), before)
    assert not any(x.is_inference() for x in traced.tensors.values())


def test_a_point_named_twice_counts_once_and_any_integers_are_accepted(lab):
    traced = lab.trace(
        torch.arange(SEQ), ["embed", "moe.margin", "embed"],
        layers=np.int64(1), positions=torch.tensor([3, 5]), heads=range(2),
    )  # fmt: skip
    assert traced.selection == Selection(("embed", "moe.margin"), (1,), (0, 1), (3, 5))
    assert traced["embed"].shape == (2, 64)
    assert traced["moe.margin"].sizes == {"layer": 1, "seq": 2}


@pytest.mark.parametrize(
    "positions", [np.array([1, 2]), torch.tensor([1, 2]), range(1, 3), {1: 0, 2: 0}]
)
def test_integers_of_any_library_are_saved(lab, tmp_path, positions):
    traced = lab.trace(
        np.arange(SEQ, dtype=np.uint16), ["attn.z"],
        layers=[np.int8(1), torch.tensor(0), 1], heads=np.array([3, 0, 3]), positions=positions,
    )  # fmt: skip
    traced.save(tmp_path / "run")
    read = read_trace(tmp_path / "run")
    assert read.selection == Selection(("attn.z",), (1, 0), (3, 0), (1, 2))  # each point once
    assert read["attn.z"].sizes == {"layer": 2, "seq": 2, "head": 2, "head_dim": 16}
    seq = read["attn.z"].seq
    assert lab.trace(range(SEQ), ["attn.z"], positions=seq).positions == (1, 2)
    assert lab.plan(range(SEQ), ["attn.z"], layers=[0, 0], heads=[1, 1]).total == SEQ * 16 * 4


def test_find_gives_the_positions_of_a_text(lab, tiny):
    traced = lab.trace(tiny.encode("the 4 in 44"), ["moe.margin"])
    assert [label.text for label in traced.labels] == ["the", " ", "4", " ", "in", " ", "4", "4"]
    assert (traced.find("4"), traced.find("44"), traced.find("he 4 i")) == ((2, 6, 7), (6,), (0,))
    assert traced.find("absent") == ()
    with pytest.raises(LabError, match="the text is empty"):
        traced.find("")
    with pytest.raises(LabError, match="find: expected text, got 4"):
        traced.find(4)


def test_a_plan_is_exact_in_bytes(lab, whole):
    assert lab.plan(range(SEQ), ALL).total == sum(x.nbytes for x in whole.tensors.values())
    some = {"layers": [0], "heads": [1, 2], "positions": [3]}
    part = lab.trace(range(SEQ), ALL, **some)
    planned = lab.plan(range(SEQ), ALL, **some)
    assert planned.total == sum(x.nbytes for x in part.tensors.values())
    assert planned.seconds > 0
    assert str(planned).endswith(" s")


def test_a_budget_is_kept(lab):
    with pytest.raises(
        LabError, match=r"of which attn\.scores takes .*, but the budget is 1\.0 KiB; select"
    ):
        lab.trace(range(SEQ), ["attn.scores", "moe.margin"], budget=1024)


def test_a_budget_applies_to_all_traces_of_a_batch_together(lab):
    rows = [range(SEQ), range(4)]
    needed = sum(lab.plan(row, ["embed"]).total for row in rows)
    assert len(lab.trace_batch(rows, ["embed"], budget=needed)) == 2
    with pytest.raises(LabError, match=rf"these traces of {SEQ + 4} tokens would take"):
        lab.trace_batch(rows, ["embed"], budget=needed - 1)


def test_a_row_may_start_in_a_later_chunk(lab, monkeypatch):
    monkeypatch.setattr("oss_lab.engine.read.PREFILL_CHUNK", 5)
    rows = [[7, 8, 9], range(SEQ)]
    for row, trace in zip(rows, lab.trace_batch(rows, ALL), strict=True):
        alone = lab.trace(row, ALL)
        for name, tensor in trace.tensors.items():
            torch.testing.assert_close(tensor, alone.tensors[name], atol=1e-4, rtol=1e-4)


def test_shares_in_a_bfloat16_model_are_more_precise_than_bfloat16(random_model, tiny_config, tiny):
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
            r"unknown point 'moe\.ids'; did you mean 'moe\.expert_ids'\? The points are embed",
        ),
        ({"points": []}, "points is empty"),
        ({"layers": [2]}, "layer 2 is out of range; this model has layers 0 to 1"),
        ({"layers": []}, "layers is empty; leave it out"),
        ({"heads": [-1]}, "head -1 is out of range; this model has heads 0 to"),
        ({"positions": [SEQ]}, f"position {SEQ} is out of range; the sequence has"),
        ({"positions": [5, 3]}, "positions must increase without repeats; 3 is not larger"),
        ({"positions": [5, 5]}, "positions must increase"),
        ({"points": "embed"}, "points must be a list of names, got 'embed'"),
        ({"points": None}, "points must be a list of names, got None"),
        ({"points": [["embed"]]}, r"points must be a list of names, got \[\['embed'\]"),
        ({"positions": torch.arange(SEQ) < 2}, "positions: expected integers, got True"),
        ({"layers": [torch.tensor(True)]}, "layers: expected integers, got tensor"),
        ({"channels": 3}, "channels must be a list of names, got 3"),
        ({"channels": [3]}, r"channels must be a list of names, got \[3"),
        ({"channels": []}, "channels is empty; leave it out"),
        ({"positions": [1], "channels": ["final"]}, "not both"),
    ],
)
def test_mistakes_are_one_sentence(lab, arguments, message):
    with pytest.raises(LabError, match=message):
        lab.trace(range(SEQ), **({"points": ["embed"]} | arguments))


def test_values_that_are_not_sequences_are_refused(lab):
    with pytest.raises(LabError, match="empty"):
        lab.trace([], ["embed"])
    with pytest.raises(LabError, match="id 288 at position 1"):
        lab.trace([1, 288], ["embed"])


def test_values_that_were_not_recorded_are_named(whole, lab):
    part = lab.trace([1, 2], ["moe.margin"], layers=[1])
    with pytest.raises(LabError, match=r"does not contain 'embed'; it contains moe\.margin"):
        part["embed"]
    with pytest.raises(LabError, match=r"layer 0 is out of range; this trace has only layer 1"):
        part.tensor("moe.margin", 0)
    for key in (("moe.margin", "1"), ("moe.margin", 1, 2)):
        with pytest.raises(LabError, match="expected a point, or a point and a layer"):
            part[key]


def test_broken_weights_are_reported(random_model, tiny_config, tiny):
    model = random_model(replace(tiny_config, vocab_size=288))
    model.block[1].attn.sinks.data[0] = torch.nan
    with pytest.raises(LabError, match=r"attn\.sink_mass/1 contains NaN"):
        Lab(model, tiny, GREEDY).trace([1, 2], ["attn.sink_mass"])


def test_an_activation_that_is_zero_everywhere_causes_a_warning(random_model, tiny_config, tiny):
    model = random_model(replace(tiny_config, vocab_size=288))
    lab = Lab(model, tiny, GREEDY)
    model.block[1].attn.out.weight.data.zero_()
    model.block[1].attn.out.bias.data.zero_()
    with pytest.warns(AllZeroWarning, match=r"attn\.out/1 is zero everywhere") as caught:
        lab.trace([1, 2, 3], ["attn.out", "attn.z", "attn.sink"])
    assert len(caught) == 1


def test_one_row_per_number_in_pandas(whole):
    table = whole.to_pandas("moe.expert_weights")
    assert len(table) == whole["moe.expert_weights"].size
    assert {"layer", "seq", "slot", "text", "channel", "moe.expert_weights"} <= set(table.columns)
