"""An agent over `connect`: the same answers as over the loaded model."""

import pytest

pytest.importorskip("openai", reason="openai is not installed (extra `connect`)")

from oss_lab.agents import Agent, Browser, Budget, Tool
from oss_lab.errors import LabError
from oss_lab.nano.calculator import calculate
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL, LOOK_UP_TOOL
from oss_lab.server.remote import connect

WORDS = {"moon": "34", "gold": "36", "ship": "31"}
CALCULATOR = Tool.of(calculate, CALCULATOR_TOOL)
LOOK_UP = Tool.of(lambda word: WORDS[word], LOOK_UP_TOOL)


@pytest.fixture(scope="module")
def remote(serve):
    with serve() as url:
        yield connect(url, token="secret")


@pytest.mark.parametrize(
    ("question", "effort", "answer", "outputs"),
    [
        ("What is 4815 * 884?", "medium", "4256460", ["4256460"]),
        ("Look up moon, gold and ship and add them.", "high", "101", ["34", "36", "31"]),
    ],
)
def test_the_run_is_the_same_over_the_server(nano, remote, question, effort, answer, outputs):
    there, here = (
        Agent(model, [CALCULATOR if effort == "medium" else LOOK_UP], effort=effort).run(question)
        for model in (remote, nano)
    )
    assert (there.final, [each.output for each in there.calls]) == (answer, outputs)
    assert there.stopped == here.stopped == "answer"
    assert [each.analysis for each in there.replies] == [each.analysis for each in here.replies]
    assert [each.call.arguments for each in there.calls] == [
        each.call.arguments for each in here.calls
    ]


def test_a_run_that_its_budget_ended_continues(remote):
    agent = Agent(remote, [CALCULATOR], effort="low", budget=Budget(calls=0))
    run = agent.run("What is 4815 * 884?")
    assert (run.stopped, len(run.open_calls)) == ("calls", 1)
    assert agent.run(run.conversation, budget=Budget(calls=1)).final == "4256460"


def test_a_builtin_tool_is_refused(remote):
    with pytest.raises(LabError, match="functions only, so the tool 'browser' cannot be sent"):
        Agent(remote, [Browser()]).run("?")


def test_a_response_format_is_refused(remote):
    agent = Agent(remote, response_format={"type": "object"})
    with pytest.raises(LabError, match="response_format has no effect on another engine"):
        agent.run("?")
    with pytest.raises(LabError, match="response_format has no effect on another engine"):
        remote.chat("?", response_format={"type": "object"})
    assert remote.chat("What is 3 * 4?", response_format=None, effort="low").final == "12"
