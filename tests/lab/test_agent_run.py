"""A run is data: it is written as JSON and read back without a model, with nothing lost."""

import json
import math
from dataclasses import replace

import pytest

from oss_lab.agents import (
    Agent,
    Budget,
    ScriptedModel,
    read_run,
    run_from_dict,
    run_to_dict,
    write_answer,
    write_call,
)
from oss_lab.errors import LabError
from oss_lab.harmony import render


def add(a: int, b: int) -> int:
    """Add two numbers, <b>bold</b>."""
    return a + b


@pytest.fixture(scope="module")
def runs(nano):
    """Runs that ended in several ways."""
    calls = write_call("functions.add", a=1, b=2, thinking="<i>", last=False) + write_call(
        "functions.add", "{'a': 1, 'b': '2'}"
    )
    agent = Agent(ScriptedModel([calls, write_answer("三 & <b>3</b>")]), [add])
    first = agent.run("1+2?")
    stream = agent.stream("?")
    next(iter(stream))
    return {
        "nano": Agent(nano, effort="high", alternatives=2).run("What is 3 * 4?"),
        "answer": first,
        "follow-up": Agent(
            ScriptedModel(["", "", calls, write_answer("3")]), [add], drop_reasoning=True
        ).run(first.follow_up("Again?")),
        "calls": Agent(agent.model, [add], budget=Budget(calls=1, seconds=9.5)).run("1+2?"),
        "resumed": agent.run(
            Agent(agent.model, [add], budget=Budget(calls=1)).run("1+2?").conversation
        ),
        "length": Agent(agent.model, [add], max_tokens=7).run("1+2?"),
        "closed": stream.close(),
    }


NAMES = ("nano", "answer", "follow-up", "calls", "resumed", "length", "closed")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_read_as_it_was_written(runs, name, tmp_path):
    run = runs[name]
    run.save(tmp_path / "run.json")
    back = read_run(tmp_path / "run.json")
    assert run_to_dict(back) == run_to_dict(run)
    assert repr(back) == repr(run)
    assert back.conversation == run.conversation
    assert [each.ids for each in back.replies] == [each.ids for each in run.replies]
    for ours, theirs in zip(run.replies, back.replies, strict=True):
        assert replace(ours, tokens=()) == replace(theirs, tokens=())
    assert list(map(type, back.events)) == list(map(type, run.events))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_read_renders_to_the_same_ids(runs, name, nano):
    run = runs[name]
    back = run_from_dict(json.loads(json.dumps(run_to_dict(run))))
    ids = render(run.conversation, nano.tokenizer).tokens
    assert render(back.conversation, nano.tokenizer).tokens == ids


def test_log_probabilities_are_kept_and_unknown_ones_stay_unknown(runs):
    back = run_from_dict(run_to_dict(runs["nano"]))
    assert back == runs["nano"]
    assert len(back.replies[0].tokens[0].alternatives) == 2
    scripted = run_from_dict(json.loads(json.dumps(run_to_dict(runs["answer"]), allow_nan=False)))
    assert all(math.isnan(each) for each in scripted.replies[0].logprobs)


def test_messages_are_written_once(runs):
    data = run_to_dict(runs["follow-up"])
    texts = [json.dumps(each) for each in data["messages"]]
    assert len(texts) == len(set(texts))


def test_a_run_is_shown_escaped(runs):
    html = runs["answer"]._repr_html_()
    assert "<i>" not in html
    assert "&lt;i&gt;" in html
    assert "三 &amp; &lt;b&gt;3&lt;/b&gt;" in html
    assert "was converted" in html
    assert repr(runs["calls"]).endswith("2 calls, 70 tokens, stopped: calls>")


def test_another_file_is_not_replaced(runs, tmp_path):
    file = tmp_path / "notes.json"
    file.write_text('{"mine": 1}')
    with pytest.raises(LabError, match="exists and is not a run; choose another path"):
        runs["answer"].save(file)
    assert file.read_text() == '{"mine": 1}'
    runs["answer"].save(tmp_path / "run.json")
    runs["calls"].save(tmp_path / "run.json")
    assert read_run(tmp_path / "run.json").stopped == "calls"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: [], "is not a run: expected an object whose format is 'oss_lab.run'"),
        (lambda data: data | {"format": "x"}, "is not a run"),
        (lambda data: data | {"version": 99}, "has version 99 of the format"),
        (lambda data: data | {"rounds": [{}]}, "is not a valid run: KeyError"),
        (lambda data: data | {"prompt": [10**6]}, "is not a valid run: IndexError"),
        (lambda data: data | {"rounds": 3}, "is not a valid run: TypeError"),
        (lambda data: {k: v for k, v in data.items() if k != "stopped"}, "KeyError: 'stopped'"),
        (lambda data: data | {"messages": [{"role": "x", "content": ""}]}, "unknown role 'x'"),
        (lambda data: data | {"budget": {"calls": -1}}, "calls of the budget is -1"),
    ],
)
def test_a_damaged_run_is_refused_in_one_sentence(runs, change, sentence):
    with pytest.raises(LabError, match=sentence):
        run_from_dict(change(run_to_dict(runs["answer"])))


def test_a_file_that_is_not_there_or_not_json(tmp_path):
    with pytest.raises(LabError, match="cannot be read: No such file"):
        read_run(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(LabError, match="is not a JSON file"):
        read_run(tmp_path / "text.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabError, match="is not a JSON file"):
        read_run(tmp_path / "bytes.json")
