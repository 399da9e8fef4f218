"""Stored traces as a source of views, compared with `read_trace`."""

import base64
import json
import struct

import numpy as np
import pytest
import torch

from oss_lab.analysis.lens import lens
from oss_lab.hooks.points import POINTS
from oss_lab.record.trace import Trace
from oss_lab.record.trace_file import ENTRY

OPEN = """(files) => {
  const { TraceSource } = modules["source/trace.js"];
  const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  window.source = new TraceSource(files.map(([name, text]) => ({ name, bytes: decode(text) })));
}"""
READ = """async ([name, layer, range]) => {
  const { shape, data } = await source.points(source.runs[0], name, layer, range);
  return [shape, toText(Float32Array.from(data)), data.constructor.name];
}"""


@pytest.fixture(scope="module")
def reply(lab):
    return lab.chat("What is 34 * 6?", effort="medium")


@pytest.fixture
def open_traces(nano_page, tmp_path):
    """open_traces(*traces, change=None): saves them and opens the files in the page."""

    def open_files(*traces: Trace, change=None):
        files = []
        for number, trace in enumerate(traces):
            path = tmp_path / f"{number}.safetensors"
            trace.save(path)
            data = path.read_bytes()
            data = change(data) if change else data
            files.append([path.name, base64.b64encode(data).decode()])
        nano_page.evaluate(OPEN, files)
        return nano_page

    return open_files


def change_header(data: bytes, change) -> bytes:
    """The file with its trace header modified by `change`."""
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    entry = json.loads(head["__metadata__"][ENTRY])
    change(entry)
    head["__metadata__"][ENTRY] = json.dumps(entry)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_every_point_of_a_trace_reads_the_same(open_traces, lab, reply, to_array) -> None:
    trace = lab.trace(reply, list(POINTS))
    page = open_traces(trace)
    assert page.evaluate("source.config") == json.loads(json.dumps(vars(lab.config)))
    for point in POINTS:
        layer = 2 if POINTS[point].is_per_layer else None
        expected = trace[point, layer].float().numpy()
        shape, data, _ = page.evaluate(READ, [point, layer, None])
        np.testing.assert_array_equal(to_array(data, tuple(shape)), expected, err_msg=point)
        if "seq" in POINTS[point].axes:
            shape, data, _ = page.evaluate(READ, [point, layer, {"from": 3, "to": 5}])
            np.testing.assert_array_equal(to_array(data, tuple(shape)), expected[3:5])


def test_numbers_of_a_bfloat16_model(open_traces, lab, reply, to_array) -> None:
    """A trace has bfloat16 activations, float16 shares and experts of one byte."""
    trace = lab.trace(reply, ["resid.post", "attn.sink_mass", "moe.expert_ids"])
    tensors = {
        name: x.bfloat16() if "resid" in name else x.half() if "sink" in name else x
        for name, x in trace.tensors.items()
    }
    stored = Trace(**{**vars(trace), "tensors": tensors})
    page = open_traces(stored)
    for point, kind in [("resid.post", "Float32Array"), ("attn.sink_mass", "Float32Array"),
                        ("moe.expert_ids", "Int32Array")]:  # fmt: skip
        shape, data, array = page.evaluate(READ, [point, 1, None])
        assert array == kind
        expected = stored[point, 1].float().numpy()
        np.testing.assert_array_equal(to_array(data, tuple(shape)), expected)


def test_rows_and_heads_that_were_not_recorded_are_missing(
    open_traces, lab, reply, to_array
) -> None:
    points = ["attn.sink_mass", "moe.expert_ids", "attn.k", "attn.sink", "attn.pattern"]
    chosen = {"positions": [5, 6, 30], "heads": [5, 2]}
    whole, part = lab.trace(reply, points), lab.trace(reply, points, layers=[1], **chosen)
    page = open_traces(part)
    for point in points:
        shape, data, _ = page.evaluate(READ, [point, 1, None])
        found, all_ = to_array(data, tuple(shape)), whole[point, 1].float().numpy()
        if point == "attn.pattern":
            all_ = all_[..., : found.shape[-1]]
        expected = np.full_like(all_, -1 if point == "moe.expert_ids" else np.nan)
        heads = {"attn.k": [0, 1], "moe.expert_ids": slice(None)}.get(point, chosen["heads"])
        for position in chosen["positions"] if point != "attn.sink" else [slice(None)]:
            if point == "attn.sink":
                expected[heads] = all_[heads]
            else:
                expected[position, heads] = all_[position, heads]
        np.testing.assert_array_equal(found, expected, err_msg=point)
        if point != "attn.sink":
            shape, data, _ = page.evaluate(READ, [point, 1, {"from": 6, "to": 31}])
            np.testing.assert_array_equal(to_array(data, tuple(shape)), expected[6:31])
    count = len(part.tokens)
    assert page.evaluate("source.runs[0].missing") == (
        f"this trace has only 3 of {count} positions and only heads 5, 2"
    )
    assert page.evaluate("source.hasPoint('attn.k', 1) && !source.hasPoint('attn.k', 0)")
    refusal = page.evaluate(
        "source.points(source.runs[0], 'attn.k', 0).catch((error) => error.message)"
    )
    assert refusal == "attn.k was recorded in layers 1, not in 0"


def test_tokens_of_a_reply(open_traces, lab, reply) -> None:
    trace = lab.trace(reply, ["out.top_ids", "out.top_logprobs", "moe.router_logits"])
    page = open_traces(trace)
    tokens, start, answer, messages, stop = page.evaluate(
        """(({ tokens, promptLength, answer, messages, stop }) =>
             [tokens, promptLength, answer, messages, stop])(source.shown)"""
    )
    assert [token["id"] for token in tokens] == list(trace.tokens)
    assert start == len(reply.prompt_tokens)
    assert (answer, stop) == (reply.final, reply.stop)
    assert reply.analysis
    assert messages[0]["text"] == reply.analysis
    for n, token in enumerate(tokens):
        label = trace.labels[n]
        assert (token["text"], token["channel"]) == (label.text, label.channel)
        if n < start:
            assert token["logprob"] is None
        else:
            assert token["logprob"] == pytest.approx(reply.logprobs[n - start], abs=1e-4)
            best = token["alternatives"][0]
            assert best["id"] == trace["out.top_ids", None][n - 1, 0]
            assert best["text"] == trace.texts[best["id"]]
    margin = page.evaluate(
        "async () => [...(await source.points(source.shown, 'moe.margin', 3)).data]"
    )
    expected = lab.trace(reply, ["moe.margin"])["moe.margin", 3].numpy()
    np.testing.assert_allclose(margin, expected, atol=1e-5)  # derived from the router logits


def test_text_whose_characters_are_split_over_tokens(open_traces, lab, reply) -> None:
    stream = "<|channel|>final<|message|>日本 é 🙂<|return|>"
    ids = [*reply.prompt_tokens, *lab.tokenizer.encode(stream, allowed_special="all")]
    page = open_traces(lab.trace(ids, ["moe.expert_ids"]))
    assert page.evaluate("source.shown.answer") == "日本 é 🙂"
    assert "\\xe6" in page.evaluate("source.shown.tokens.map(({ text }) => text).join('')")


def test_an_older_file_shows_what_its_shapes_show(open_traces, lab, reply) -> None:
    def remove(head):
        del head["config"], head["texts"]

    trace = lab.trace(reply, ["moe.expert_ids", "attn.k", "attn.sink"])
    page = open_traces(trace, change=lambda data: change_header(data, remove))
    config = page.evaluate("source.config")
    for field in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
                  "experts_per_token"):  # fmt: skip
        assert config[field] == getattr(lab.config, field)
    assert config["num_experts"] == 1 + max(
        int(x.max()) for n, x in trace.tensors.items() if "ids" in n
    )
    assert "no configuration" in page.evaluate("source.shown.missing")


def test_the_logit_lens_of_stored_logits(open_traces, lab, reply) -> None:
    page = open_traces(lab.trace(reply, ["out.layer_logits"]))
    assert page.evaluate("[...source.can]") == ["lens"]
    cells = page.evaluate("source.analyze(source.shown, 'lens', { from: 60, to: 62, top: 2 })")
    expected = lens(lab, lab.tokens_of(reply), top=2)
    for layer, row in enumerate(cells):
        assert [cell["topIds"] for cell in row] == expected.top_ids[layer, 60:62].tolist()
        found = [cell["divergence"] for cell in row]
        np.testing.assert_allclose(found, expected.divergence[layer, 60:62], atol=1e-4)
    assert page.evaluate(
        "source.analyze(source.shown, 'knockOut', {}).catch((e) => e.message)"
    ) == ("a stored trace cannot compute knockOut; load the model for it")


def test_several_traces_are_several_runs(open_traces, lab, reply) -> None:
    other = lab.chat("What is 347 * 62?", effort="high")
    page = open_traces(lab.trace(reply), lab.trace(other))
    found = page.evaluate("source.runs.map(({ id, tokens }) => [id, tokens.length])")
    lengths = [len(each.prompt_tokens) + len(each.ids) for each in (reply, other)]
    assert found == [["0.safetensors", lengths[0]], ["1.safetensors", lengths[1]]]


def change_config(data: bytes, **fields: int) -> bytes:
    return change_header(data, lambda head: head["config"].update(fields))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-9], "the file is cut off within"),
        (lambda data: data[:5], "the file ends within its header"),
        (lambda data: b"<!doctype html><p>not a trace", "the file ends within its header"),
        (lambda data: data[:8] + b"[" + data[9:], "its header cannot be read"),
        (lambda data: change_header(data, lambda head: head.update(format=2)), "format 2; this"),
        (lambda data: change_header(data, lambda head: head.pop("tokens")), "cannot be read"),
        (lambda data: change_header(data, lambda head: head["tokens"].append(1)), "labels for"),
        (lambda data: change_header(data, lambda head: head.update(positions=[1])), "wrong shape"),
        (lambda data: change_header(data, lambda head: head.update(positions=[2, 1])), "increase"),
        (lambda data: change_header(data, lambda head: head.update(model_layers=10**11)), "layers"),
        (lambda data: change_header(data, lambda head: head.pop("origin")), "name its origin"),
        (lambda data: change_header(data, lambda head: head.update(heads=[-1])), "head number"),
        (lambda data: change_header(data, lambda h: h["labels"].__setitem__(0, [1])), "label has"),
        (
            lambda data: change_config(data, num_hidden_layers=10**8),
            "num_hidden_layers is 100000000",
        ),
        (lambda data: change_config(data, num_experts=2), "num_experts is 2, its tensors"),
        (
            lambda data: change_config(data, experts_per_token=3),
            "experts_per_token is 3, its tensors 4",
        ),
        (lambda data: change_config(data, num_attention_heads=0), "num_attention_heads is 0"),
        (lambda data: change_config(data, sliding_window=-3), "which layers have a window"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(open_traces, lab, reply, change, message) -> None:
    with pytest.raises(Exception, match=message) as raised:
        open_traces(lab.trace(reply, ["moe.expert_ids"]), change=change)
    assert "0.safetensors is not a trace of oss-lab, or it is damaged: " in str(raised.value)


def test_weights_are_not_a_trace(nano_page, tmp_path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, tmp_path / "weights")
    data = base64.b64encode((tmp_path / "weights").read_bytes()).decode()
    with pytest.raises(Exception, match="a safetensors file without a trace"):
        nano_page.evaluate(OPEN, [["weights", data]])
