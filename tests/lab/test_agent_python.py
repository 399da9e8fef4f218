"""The python tool as a toolbox: fresh per run, kept in a session, and a note of its sandbox."""

from dataclasses import dataclass

import pytest

from oss_lab.agents import (
    Agent,
    Budget,
    Python,
    RunInterrupted,
    ScriptedModel,
    write_answer,
    write_call,
)
from oss_lab.agents.python_toolbox import read_code
from oss_lab.harmony import PYTHON


@dataclass
class Outcome:
    text: str


class FakeSandbox:
    """Keeps the code that it was given, and runs none of it."""

    sandbox = "fake"

    def __init__(self):
        self.codes, self.closed = [], 0

    def run(self, code):
        if code == "interrupt":
            raise KeyboardInterrupt
        self.codes.append(code)
        return Outcome(f"{len(self.codes)}")

    def close(self):
        self.closed += 1


@pytest.fixture
def started():
    return []


@pytest.fixture
def python(started):
    def start():
        started.append(FakeSandbox())
        return started[-1]

    return Python(start)


def write_code(code):
    return write_call("python", code, channel="analysis").replace("<|constrain|>json", "code")


def test_code_is_run_as_it_is_and_the_sandbox_is_noted(python, started):
    model = ScriptedModel([write_code("a = {\n'b': 1}"), write_code("print(a)"), write_answer("2")])
    run = Agent(model, [python]).run("?")
    assert started[0].codes == ["a = {\n'b': 1}", "print(a)"]
    assert [each.output for each in run.calls] == ["1", "2"]
    assert {each.notes for each in run.calls} == {("sandbox: fake",)}
    assert run.conversation.messages[-2].channel == "analysis"
    assert run.conversation.messages[-2].author.name == "python"
    assert run.prompt.messages[0].content[0].tools == {"python": PYTHON}  # pyright: ignore
    assert started[0].closed == 1


def test_each_run_has_its_own_process_and_a_session_keeps_one(python, started):
    agent = Agent(ScriptedModel([write_code("1"), write_answer("x")]), [python])
    assert [agent.run("?").calls[0].output for _ in range(2)] == ["1", "1"]
    with agent.session() as session:
        assert [session.run("?").calls[0].output for _ in range(2)] == ["1", "2"]
    assert [each.closed for each in started] == [1, 1, 1]


def test_the_process_is_closed_after_ctrl_c(python, started):
    agent = Agent(ScriptedModel([write_code("interrupt")]), [python])
    with pytest.raises(RunInterrupted) as caught:
        agent.run("?")
    assert [each.status for each in caught.value.run.calls] == ["interrupted"]
    assert started[0].closed == 1


def test_code_that_was_cut_is_never_run(python, started):
    code = "shutil.rmtree('/mnt/data/old')"
    model = ScriptedModel([write_code(code), write_answer("done")])
    agent = Agent(model, [python])
    before_answer = len(agent.run("?").replies[0].tokens)
    for tokens in range(1, before_answer + 1):
        cut = agent.run("?", budget=Budget(tokens=tokens))
        resumed = agent.run(cut.conversation)
        assert resumed.final == "done"
        assert {each for sandbox in started for each in sandbox.codes} == {code}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"code": "print(1)"}', "print(1)"),
        ('{"input": "a\nb"}', "a\nb"),
        ('{"code": 1}', '{"code": 1}'),
        ('{"code": "a", "b": 1}', '{"code": "a", "b": 1}'),
        ('{"a": "b"}', '{"a": "b"}'),
        ("{x for x in y}", "{x for x in y}"),
        ("", ""),
    ],
)
def test_code_inside_json_is_read(text, code):
    read, notes = read_code(text)
    assert read == code
    assert bool(notes) == (text != code)


def test_the_real_sandbox():
    pytest.importorskip("oss_lab.agents.sandbox", reason="the sandbox is not in this checkout")
    model = ScriptedModel([write_code("a = 6"), write_code("print(a * 7)"), write_answer("42")])
    agent = Agent(model, [Python()])
    run = agent.run("What is 6 * 7?")
    assert [each.status for each in run.calls] == ["ok", "ok"]
    assert run.calls[1].output == "42"
    assert run.calls[1].notes[0].startswith("sandbox: ")
