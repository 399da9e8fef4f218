"""The views of a notebook, through their traits and data: no kernel, no browser."""

import json
import re
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from oss_widgets import (
    Attention,
    Attribution,
    Branches,
    Chat,
    Commitment,
    EffortLens,
    Experts,
    LogitLens,
    Microscope,
    Tokens,
)
from oss_widgets.sources import microscope
from oss_widgets.sources.lab import KEPT_RUNS, LabSource

from oss_lab import AblateExpert, Hook
from oss_lab.errors import LabError
from oss_lab.nano.gallery import GALLERY

QUESTION = "What is 12 * 3?"
make_chat: Any = Chat  # without its types, which forbid some calls
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def chat(lab):
    return Chat(lab, QUESTION, effort="medium")


def test_a_chat_asks_at_once_and_its_reply_is_the_labs(chat, lab):
    expected = lab.chat(QUESTION, effort="medium")
    assert chat.reply.ids == expected.ids
    assert chat.reply.final == expected.final
    assert chat.data()["answer"] == expected.final
    assert chat.data()["stop"] == "return"


def test_setting_the_effort_or_the_question_asks_again(lab):
    chat = Chat(lab, QUESTION, effort="low")
    chat.effort = "medium"
    assert chat.reply.ids == lab.chat(QUESTION, effort="medium").ids
    chat.question = "What is 4 + 5?"
    assert (chat.question, chat.effort) == ("What is 4 + 5?", "medium")
    assert chat.reply.ids == lab.chat("What is 4 + 5?", effort="medium").ids
    assert len(chat.source.runs) == 3


def test_known_outputs_and_the_calculator_answer_calls(lab):
    (example,) = (each for each in GALLERY if each.name == "calculator")
    tools: Any = {"tools": example.tools, "instructions": example.instructions}
    chat = Chat(lab, example.question, effort=example.effort, **tools)
    assert chat.reply.final == example.answer
    assert [each["role"] for each in chat.data()["messages"]].count("tool") == 1


def test_views_share_the_run_and_the_selection(chat):
    experts = Experts(chat)
    assert experts.run is chat.run
    experts.selection = {"layer": 2, "expert": 7}
    assert chat.selection == {
        "token": None, "layer": 2, "head": None, "expert": 7, "pinned": []
    }  # fmt: skip
    chat.set_state({"selection": {**chat.selection, "token": 70}})  # as the front end does
    assert experts.selection["token"] == 70


@pytest.mark.parametrize("wrong", [{"token": -1}, {"x": 1}, {"pinned": [5]}, 5, None])
def test_a_wrong_selection_of_the_front_end_is_not_kept(chat, wrong, monkeypatch):
    sent = []
    chat.selection = {"layer": 1}
    monkeypatch.setattr(chat, "send_state", sent.append)
    chat.set_state({"selection": wrong})
    assert (chat.selection["layer"], chat.selection["token"]) == (1, None)
    assert sent == ["selection"]


def test_the_data_of_every_view_is_plain_and_equals_the_labs(chat, lab):
    run = chat.run
    trace = lab.trace(run.ids, ["moe.expert_ids", "moe.expert_weights", "attn.sink_mass"])
    experts = Experts(chat).data()
    assert experts["expertIds"] == trace["moe.expert_ids"].values.tolist()
    np.testing.assert_allclose(experts["weights"], trace["moe.expert_weights"].values, atol=1e-5)
    attention = Attention(chat).data()
    np.testing.assert_allclose(attention["sinkMass"], trace["attn.sink_mass"].values, atol=1e-5)
    assert Tokens(chat).data()["ids"] == run.ids
    lens = LogitLens(chat).data()["layers"]
    assert len(lens) == lab.config.num_hidden_layers
    assert lens[-1][-1]["topIds"][0] == run.ids[-1]
    parts = Attribution(chat).data()
    total = sum(np.sum(parts[name]) for name in ("bias", "heads", "slots")) + parts["embedding"]
    assert total == pytest.approx(parts["logit"], abs=1e-3)
    assert Commitment(chat).data()["steps"][-1]["answer"] == run.answer
    assert EffortLens(chat).data()["efforts"][0]["effort"] == "low"
    assert len(Microscope(chat).data()["values"]) == 32
    assert Branches(chat).data()["runs"][0]["answer"] == run.answer
    for view in (Tokens, Experts, Attention, LogitLens, Attribution, Microscope):
        json.dumps(view(chat).data(), allow_nan=False)


def test_every_view_has_a_still_without_a_kernel(chat):
    for view in (Chat, Tokens, Experts, Attention, LogitLens, Attribution, Branches, Commitment,
                 EffortLens, Microscope):  # fmt: skip
        bundle = view(chat)._repr_mimebundle_()
        assert set(bundle) == {VIEW, "text/html", "text/plain"}
        assert bundle["text/plain"]
    bundle = chat._repr_mimebundle_()
    assert bundle["text/plain"].startswith(f"{QUESTION} (medium effort): ")
    spoken = re.sub("<[^>]*>", "", bundle["text/html"].split("<b>final</b>")[1])
    assert chat.reply.final in spoken


def test_texts_of_a_user_are_never_markup(lab):
    chat = Chat(lab, "<img src=x onerror=alert(1)>\x1b[31m\u202e", effort="low")
    assert "onerror=alert(1)>\\x1b[31m\\u202e (low" in chat._repr_mimebundle_()["text/plain"]
    for view in (chat, Tokens(chat)):
        html = view._repr_mimebundle_()["text/html"]
        assert "<img" not in html
        assert "&lt;" in html


def test_a_trace_needs_no_model(chat, lab):
    trace = lab.trace(chat.reply)
    assert Experts(trace).data()["expertIds"] == Experts(chat).data()["expertIds"]
    tokens = Tokens(trace)
    assert tokens.data()["promptLength"] == chat.run.prompt_length
    assert tokens.run.answer == chat.run.answer
    assert tokens.stored["can"] == []
    with pytest.raises(LabError, match="Logit lens needs a model"):
        LogitLens(trace).data()
    with pytest.raises(LabError, match="shows stored tokens, not a reply"):
        _ = tokens.reply


def test_a_trace_knows_how_many_experts_there_are(chat, lab):
    trace = lab.trace(chat.reply, ["moe.expert_ids", "moe.expert_weights"])
    config = Experts(trace).source.config or {}
    assert config == {field: getattr(lab.config, field) for field in config}
    assert config["num_experts"] == 32
    older = replace(trace, config=None)
    most = max(int(each.max()) for name, each in trace.tensors.items() if "expert_ids" in name)
    config = Experts(older).source.config or {}
    assert config["num_experts"] == most + 1


def test_a_reply_from_before_is_shown_with_its_lab(lab):
    reply = lab.chat(QUESTION, effort="low")
    view = Experts(reply, lab=lab)
    assert view.reply == reply
    assert len(view.data()["expertIds"][0]) == len(reply.prompt_tokens) + len(reply.ids)


def test_an_array_of_the_caller_is_shown_with_its_tokens():
    view = Tokens(np.array([0.5, 2.0]), tokens=["a", "<b>"], name="surprise", unit="nats")
    assert view.data() == {
        "tokens": ["a", "<b>"], "name": "surprise", "unit": "nats", "values": [0.5, 2.0]
    }  # fmt: skip
    still = view._repr_mimebundle_()
    assert still["text/plain"] == "surprise in nats, 2."
    assert "&lt;b&gt;" in still["text/html"]
    assert view.options["array"]["shape"] == [2]
    assert Attention(np.ones((2, 3, 3))).data()["values"][1] == [[1.0] * 3] * 3
    named = xarray.DataArray(np.ones((3, 2, 4)), dims=("seq", "layer", "slot"))
    assert np.shape(Experts(named).data()["values"]) == (2, 3, 4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda lab: make_chat(5),
            "expected a Lab, a Reply with its lab, a Trace or another view, got 5",
        ),
        (lambda lab: make_chat(lab, 5), "question must be text, got 5"),
        (
            lambda lab: make_chat(lab, "a", effort="hi"),
            "effort must be 'low', 'medium' or 'high', got",
        ),
        (lambda lab: make_chat(lab, " "), "there is no question; write one"),
        (lambda lab: make_chat(lab, "a", seed=1), "Chat has no 'seed'; it has history"),
        (
            lambda lab: make_chat(lab, "a", sampling={"heat": 1}),
            "sampling has no heat; it has temp",
        ),
        (
            lambda lab: make_chat(lab, "a", interventions=[{"kind": "Ablate"}]),
            "did you mean 'Ablate",
        ),
        (
            lambda lab: make_chat(
                lab, "a", interventions=[{"kind": "AblateHead", "layer": 9, "head": 1}]
            ),
            "layer 9 is out of range",
        ),
        (lambda lab: make_chat(lab, "a", sampling=5), "sampling must be an object, got 5"),
        (lambda lab: make_chat(lab, "a", tools=5), "tools must be a list, got 5"),
        (lambda lab: make_chat(lab, "a", history=[["b"]]), "history must be pairs of a question"),
        (lambda lab: make_chat(lab, "a", toolOutputs={"b": 5}), "toolOutputs must be texts"),
        (lambda lab: make_chat(lab).reply, "nothing is shown yet: ask a question first"),
        (lambda lab: Tokens(lab.chat("a")), "a Reply needs the lab"),
        (lambda lab: Tokens(lab, name="a"), "tokens, name and unit belong to an array"),
        (lambda lab: Tokens([1.0], tokens=["a", "b"]), "tokens must be 1 texts, one per token"),
        (lambda lab: Tokens([1.0], tokens=make_chat), "tokens must be 1 texts, one per token"),
        (lambda lab: Tokens(None), r"Tokens shows an array \[seq\], got None"),
        (lambda lab: Tokens(3.0), r"Tokens shows an array \[seq\], got 3.0"),
        (lambda lab: Tokens(np.ones(2, complex)), "an array .seq., got ndarray of complex128"),
        (lambda lab: Tokens(torch.ones(2, device="meta")), "an array .seq., got Tensor"),
        (lambda lab: Tokens(torch.ones(2).to_sparse()), "an array .seq., got Tensor"),
        (lambda lab: Experts([1.0]), r"Experts shows an array \[layer seq slot\], got"),
        (lambda lab: setattr(make_chat(lab), "selection", {"layr": 1}), "not 'layr'"),
        (
            lambda lab: setattr(make_chat(lab), "selection", {"layer": "a"}),
            "layer must be an index",
        ),
    ],
)
def test_a_mistake_is_one_sentence(lab, make, sentence):
    with pytest.raises(LabError, match=sentence):
        make(lab)


def test_an_active_intervention_is_not_ignored(lab):
    with lab.intervene(AblateExpert(layer=0, expert=27)):
        with pytest.raises(LabError, match="does not take part in a `with` block"):
            Chat(lab)
        lab.chat(QUESTION, effort="high", max_tokens=1)


def test_the_python_of_a_run_makes_the_same_reply(lab):
    made = [{"kind": "AblateExpert", "layer": 0, "expert": [27, 3]}]
    chat = Chat(lab, QUESTION, effort="medium", interventions=made)
    run, source = chat.run, chat.source
    fork = run.fork("run-2", run.prompt_length + 6, [20], ())
    source.add(fork)
    for each in (run, fork):
        while each.step():
            pass
        code = source.call(source.methods["toPython"]({"run": each.id}, "", threading.Event()))
        names: dict[str, Any] = {}
        exec(code, names)
        assert names["reply"].ids == each.reply.ids, code


def test_a_flip_never_changes_the_model_that_others_use(chat, lab, monkeypatch):
    run, source = chat.run, chat.source
    ids = run.ids[:-1]
    expected, seen = lab.logits(ids), []
    read = microscope.read_layer

    def read_beside_another_thread(*args: Any) -> Any:
        found = read(*args)
        seen.append(lab.logits(ids))
        return found

    monkeypatch.setattr(microscope, "read_layer", read_beside_another_thread)
    expert = int(run.recording.get("moe.expert_ids", 0, 5, 6)[0, 0])
    place = {"layer": 0, "expert": expert, "matrix": "down", "row": 0, "block": 0}
    options = {"at": len(ids), "bit": 134, "place": place}
    found = source.call(source.analyze(run, "flipBit", options))
    assert found["block"]["scale"] == lab.model.block[0].mlp.mlp2_weight.scales[expert, 0, 0] ^ 64
    options["place"] = {**place, "matrix": "gate_up"}
    options["bit"] = 135
    with pytest.raises(LabError, match="the logits are not finite; flip a lower bit"):
        source.call(source.analyze(run, "flipBit", options))
    assert len(seen) == 4
    for logits in seen:
        assert logits.equal(expected)


def test_old_runs_keep_no_cache_and_can_still_be_analyzed(lab):
    question = "What is 3 * 4?"
    chat, fresh = (Chat(lab, question, effort="medium") for _ in range(2))
    run, at = chat.run, len(chat.run.ids) - 2
    source = chat.source
    assert isinstance(source, LabSource)
    for number in range(KEPT_RUNS):
        assert run.cache.length == len(run.ids) - 1
        chat.question = f"What is {number} + 1?"
        assert chat.run.stop == "return"
    assert run.cache.length == 0
    found, expected = (
        source.call(source.analyze(each, "knockOut", {"at": at})) for each in (run, fresh.run)
    )
    np.testing.assert_allclose(found["logprobChanges"], expected["logprobChanges"], atol=1e-5)
    assert run.cache.length == at - 1  # kept for the next request
    weights = [each.recording.get("resid.post", 1, 3, at) for each in (run, fresh.run)]
    torch.testing.assert_close(*weights, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("method", "args", "sentence"),
    [
        ("step", [], "args must be an object"),
        ("step", {"count": "x"}, "count must be an integer, got 'x'"),
        ("points", {"name": "moe.expert_ids", "layer": []}, "layer must be an integer"),
        ("points", {"name": "moe.expert_ids", "layer": 0, "range": 5}, "range must be an object"),
        ("ask", {"request": [5]}, "request must be an object"),
        ("fork", {"at": 70, "change": {"text": 5}}, "text must be text, got 5"),
        ("fork", {"at": 70, "change": {"ids": 5}}, "ids must be a list, got 5"),
        ("analyze", {"name": "lens", "options": {"to": "x"}}, "has no token"),
        ("analyze", {"name": "lens", "options": {"top": True}}, "top is True"),
        ("analyze", {"name": "flipBit", "options": {"at": 70, "place": 5}}, "place must be an obj"),
        ("analyze", {"name": "block", "options": {"layer": True}}, "layer must be an integer"),
    ],
)
def test_a_malformed_message_is_answered_by_one_sentence(chat, method, args, sentence):
    run, found, done = chat.run.id, [], threading.Event()
    if isinstance(args, dict):
        args = {"run": run, **args}
    elif args == []:
        args = [run]

    def send(content: Any, _: Any) -> None:
        found.append(content)
        done.set()

    chat.source.receive({"id": "a", "method": method, "args": args}, send)
    assert done.wait(60)
    assert sentence in found[0]["error"]
    assert "bug" not in found[0]["error"]


def test_a_request_with_objects_of_python_can_be_sent(lab):
    made = [AblateExpert(layer=0, expert=27), Hook("attn.z", lambda x, here: x, layer=3)]
    chat = make_chat(lab, QUESTION, "low", interventions=made, sampling={"seed": np.int64(3)})
    chat.wait()
    (run,) = json.loads(json.dumps(chat.stored))["runs"]
    assert run["request"]["sampling"] == {"seed": 3}
    ablate, hook = run["request"]["interventions"]
    assert ablate == {"kind": "AblateExpert", "layer": 0, "expert": 27}
    assert hook["kind"] == "Hook"


def test_the_python_of_a_fork_has_the_outputs_of_its_tools(lab):
    """A fork before the call, one after the output, and one whose reply is cut."""
    (example,) = (each for each in GALLERY if each.name == "calculator")
    chat = make_chat(lab, example.question, example.effort, tools=example.tools)
    run, source = chat.run, chat.source
    cut = make_chat(lab, example.question, "high", maxTokens=12).run

    def request(method: str, **args: Any) -> Any:
        return source.call(source.methods[method](args, "", threading.Event()))

    assert len(run.exchanges) == 2
    places = [run.prompt_length + 1, run.exchanges[1].start + 2]
    source.add(cut)
    cut.id = "run-cut"
    for parent, at in [(run, places[0]), (run, places[1]), (cut, cut.prompt_length + 3)]:
        fork = source.find_run(request("fork", run=parent.id, at=at, change={"text": "7"}))
        request("step", run=fork.id)
        names: dict[str, Any] = {}
        code = request("toPython", run=fork.id)
        exec(code, names)
        assert names["ids"] == fork.ids, code
