"""The scripted model: replies that were written beforehand, with the interface of a lab."""

import pytest

from oss_lab.agents import ScriptedModel, write_analysis, write_answer
from oss_lab.agents.scripted import count_inputs
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Message


def test_inputs_are_counted():
    user, assistant = Message.of("user", "?"), Message.of("assistant", "!")
    tool = Message.of("tool", "1", name="f")
    assert count_inputs(Conversation.of(user)) == 1
    assert count_inputs(Conversation.of(user, assistant, tool, tool)) == 2
    assert count_inputs(Conversation.of(user, assistant, tool, assistant, user)) == 3


def test_a_script_is_checked():
    with pytest.raises(LabError, match="expected a list of replies, got str"):
        ScriptedModel("text")
    with pytest.raises(LabError, match="has text after its first stop token"):
        ScriptedModel([write_answer("1") + "more"]).chat("?")
    with pytest.raises(LabError, match="there is no keyword 'sed'"):
        ScriptedModel([write_answer("1")]).chat("?", sed=1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(LabError, match="points has no effect on a ScriptedModel"):
        ScriptedModel([write_answer("1")]).chat("?", points=["resid.post"])
    with pytest.raises(LabError, match="response_format has no effect on a ScriptedModel"):
        ScriptedModel([write_answer("1")]).chat("?", response_format={"type": "object"})


def test_a_script_answers_like_a_lab():
    reply = ScriptedModel([write_analysis("Hm.") + write_answer("Ja, 是")]).chat("?", effort="low")
    assert (reply.analysis, reply.final, reply.stop) == ("Hm.", "Ja, 是", "return")
    assert reply.diagnostics == ()


def test_stop_strings_and_max_tokens_hold_for_a_script():
    model = ScriptedModel([write_answer("one two three")])
    assert model.chat("?", stop=" three").final == "one two"
    assert model.chat("?", max_tokens=3).stop == "length"
