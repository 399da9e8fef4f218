"""The solutions of the sheet on tools are what the agent and the server's reader do."""

import json

import pytest

from oss_lab.agents import (
    Agent,
    Budget,
    ScriptedModel,
    Tool,
    write_analysis,
    write_answer,
    write_call,
)
from oss_lab.agents.calls import run_call
from oss_lab.course.exercise import judge
from oss_lab.course.exercises import list_exercises
from oss_lab.course.sheets import s14_tools as sheet
from oss_lab.harmony import Conversation, Message
from oss_lab.harmony.openai_messages import convert_messages
from oss_lab.harmony.policy import find_dropped_messages
from oss_lab.record.reply import ToolCall


@pytest.mark.parametrize(("call", "tools"), list(sheet.run_call_cases()))
def test_a_call_is_run_as_the_agent_does(call, tools):
    mine = sheet.my_run_call(call, tools)
    library = run_call(call, {name: Tool.of(untyped(f)) for name, f in tools.items()})
    assert library.message is not None
    for field in ("author", "channel", "recipient"):
        assert getattr(mine, field) == getattr(library.message, field)
    if library.notes:  # the library reads a Python literal, and notes it; the sheet is stricter
        assert mine.text == "error: bad arguments"
    elif mine.text.startswith("error: "):
        assert library.message.text.startswith("error: ")
    else:
        assert read(mine.text) == read(library.message.text)


def untyped(function):
    """The functions of the sheet have no hints, which a tool needs."""

    def add(a: int | str, b: int | str) -> object:
        """Add."""
        return function(a, b)

    def find(word: str, exact: bool = True) -> object:
        """Find."""
        return function(word, exact)

    def find_object(word: str) -> object:
        """Find."""
        return function(word)

    return {sheet.add: add, sheet.find: find, sheet.find_object: find_object}[function]


def read(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.mark.parametrize("most", range(5))
def test_the_loop_ends_where_the_agent_ends(most):
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    two = write_call("functions.add", a=1, b=2, thinking="Two.", last=False)
    script = [
        two + write_call("functions.add", a=3, b=4),
        write_analysis("One more.") + write_call("functions.add", a=5, b=6),
        write_answer("3, 7, 11", thinking="Done."),
    ]
    model, tools = ScriptedModel(script), {"functions.add": Tool.of(add)}
    agent = Agent(model, [add], budget=Budget(calls=most))
    run = agent.run("Three sums?")
    prompt = agent.conversation("Three sums?")

    def reply_to(messages):
        return list(model.chat(Conversation(tuple(messages))).messages)

    def run_one(message: Message):
        assert message.recipient is not None
        call = ToolCall(message.recipient, message.text, message.channel)
        return run_call(call, tools).message

    messages, reason = sheet.my_loop(reply_to, run_one, list(prompt.messages), most)
    assert tuple(messages) == run.conversation.messages
    assert reason == {"answer": "answer", "calls": "budget"}[run.stopped]


@pytest.mark.parametrize("chat", [case[0] for case in sheet.client_cases()])
def test_a_client_is_read_as_the_server_does(chat):
    _, *messages = convert_messages(chat, effort="medium")
    dropped = find_dropped_messages(messages, "spec", "completion")
    kept = [message for n, message in enumerate(messages) if n not in dropped]
    assert sheet.my_client_messages(chat) == kept


def test_a_loop_that_never_ends_is_one_sentence():
    def my_loop(reply_to, run, messages, most):
        while True:
            reply_to(messages)

    verdict = judge(list_exercises()["my_loop"], my_loop)
    assert verdict.kind == "raised"
    assert "the loop never ends" in verdict.text
