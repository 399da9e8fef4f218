"""Every way in which a run ends: budgets, interruptions and failures. Nothing is lost."""

import time
from typing import Any

import pytest

from oss_lab.agents import (
    Agent,
    Budget,
    RunInterrupted,
    ScriptedModel,
    Tool,
    write_answer,
    write_call,
)
from oss_lab.agents.scripted import count_inputs
from oss_lab.errors import LabError
from oss_lab.harmony import Message
from oss_lab.nano.calculator import calculate
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL, LOOK_UP_TOOL
from oss_lab.record.builder import ReplyBuilder

CALCULATOR = Tool.of(calculate, CALCULATOR_TOOL)
SEVERAL = (
    write_call("functions.add", a=1, b=2, thinking="Two sums.", last=False)
    + write_call("functions.add", a=3, b=4, last=False)
    + write_call("functions.add", a=5, b=6)
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# Budgets


def test_the_budget_of_calls_ends_the_run_at_the_next_call_and_nothing_is_lost():
    model = ScriptedModel([SEVERAL, write_answer("3, 7, 11")])
    ran = []

    def add(a: int, b: int) -> int:
        ran.append((a, b))
        return a + b

    agent = Agent(model, [add], budget=Budget(calls=2))
    run = agent.run("Three sums?")
    assert (run.stopped, run.detail) == ("calls", "the budget of 2 calls is used up")
    assert [each.status for each in run.calls] == ["ok", "ok", "not run"]
    assert ran == [(1, 2), (3, 4)]
    assert [each.arguments for each in run.open_calls] == ['{"a": 5, "b": 6}']
    resumed = agent.run(run.conversation)  # the open call first, then the answer
    assert ran == [(1, 2), (3, 4), (5, 6)]
    assert resumed.final == "3, 7, 11"
    assert resumed.rounds[0].reply is None
    assert resumed.rounds[0].calls[0].output == "11"
    unlimited = Agent(model, [add]).run("Three sums?")
    assert resumed.conversation == unlimited.conversation


def test_the_model_may_answer_after_its_last_call():
    model = ScriptedModel([write_call("functions.add", a=1, b=2), write_answer("3")])
    run = Agent(model, [add], budget=Budget(calls=1)).run("1+2?")
    assert (run.stopped, run.final) == ("answer", "3")


def test_no_calls_at_all():
    model = ScriptedModel([write_call("functions.add", a=1, b=2)])
    run = Agent(model, [add], budget=Budget(calls=0)).run("1+2?")
    assert run.stopped == "calls"
    assert [each.status for each in run.calls] == ["not run"]


def test_malformed_calls_count():
    def again(conversation):
        return write_call("functions.nothing")

    run = Agent(ScriptedModel([again] * 50), [add], budget=Budget(calls=5)).run("?")
    assert run.stopped == "calls"
    assert [each.status for each in run.calls] == ["unknown tool"] * 5 + ["not run"]


def test_the_budget_of_tokens_cuts_the_reply_that_reaches_it():
    model = ScriptedModel([write_call("functions.add", a=1, b=2), write_answer("the sum is three")])
    whole = Agent(model, [add]).run("1+2?")
    first = len(whole.replies[0].tokens)
    for tokens in range(1, whole.tokens + 1):
        run = Agent(model, [add], budget=Budget(tokens=tokens)).run("1+2?")
        assert run.tokens == tokens
        together = [id for reply in run.replies for id in reply.ids]
        assert together == [id for reply in whole.replies for id in reply.ids][:tokens]
        if tokens < whole.tokens:
            assert run.stopped == "tokens"
            ran = [each.status for each in run.calls]
            # A call at the end of the budget is not run: its output could not be read.
            assert ran == ([] if tokens < first else ["not run"] if tokens == first else ["ok"])
        else:
            assert (run.stopped, run.final) == ("answer", "the sum is three")


def test_max_tokens_of_a_reply_is_not_the_budget():
    model = ScriptedModel([write_answer("one two three four")])
    run = Agent(model, budget=Budget(tokens=100), max_tokens=5).run("?")
    assert run.stopped == "length"
    assert run.tokens == 5


def test_the_budget_of_seconds_cuts_a_reply_between_two_tokens(nano):
    class Slow:
        """A model that takes 20 ms for a token."""

        tokenizer = nano.tokenizer

        def stream(self, question, **options):
            stream = ScriptedModel([write_answer("x " * 500)]).stream(question, **options)
            inner = stream._tokens

            def slowly():
                for events in inner:
                    time.sleep(0.02)
                    yield events

            stream._tokens = slowly()
            return stream

    run: Any = Agent(Slow(), budget=Budget(seconds=0.3)).run("?")
    assert run.stopped == "seconds"
    assert run.detail == "the budget of 0.3 seconds is used up"
    assert 0.3 <= run.seconds < 3
    assert 0 < run.tokens < 100
    assert run.replies[0].unfinished
    assert "x x" in run.final
    assert Message.of("assistant", run.final, channel="final") == run.conversation.messages[-1]


def test_a_slow_tool_keeps_its_output_and_ends_the_run():
    def wait() -> str:
        time.sleep(0.2)
        return "done"

    model = ScriptedModel(
        [write_call("functions.wait", last=False) + write_call("functions.wait"), write_answer("x")]
    )
    run = Agent(model, [wait], budget=Budget(seconds=0.1)).run("?")
    assert run.stopped == "seconds"
    assert [(each.status, each.output) for each in run.calls] == [("ok", "done"), ("not run", None)]
    assert run.calls[0].seconds >= 0.2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"calls": -1}, "calls of the budget is -1; use an integer, 0 or more, or None"),
        ({"calls": 1.5}, "calls of the budget is 1.5"),
        ({"tokens": 0}, "tokens of the budget is 0; use an integer, 1 or more"),
        ({"tokens": True}, "tokens of the budget is True"),
        ({"seconds": 0}, "seconds of the budget is 0; use a number above 0"),
        ({"seconds": float("nan")}, "seconds of the budget is nan"),
        ({"seconds": "1"}, "seconds of the budget is '1'"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(fields, sentence):
    with pytest.raises(LabError, match=sentence):
        Budget(**fields)


# Interruptions


def test_ctrl_c_in_a_tool_keeps_the_run_and_reaches_the_caller():
    ran = []

    def step(n: int) -> int:
        ran.append(n)
        if n == 2:
            raise KeyboardInterrupt
        return n

    calls = [write_call("functions.step", n=n, last=n == 3) for n in (1, 2, 3)]
    with pytest.raises(KeyboardInterrupt) as caught:
        Agent(ScriptedModel(["".join(calls)]), [step]).run("?")
    assert isinstance(caught.value, RunInterrupted)
    run = caught.value.run
    assert run.stopped == "interrupted"
    assert [each.status for each in run.calls] == ["ok", "interrupted", "not run"]
    assert [each.arguments for each in run.open_calls] == ['{"n": 2}', '{"n": 3}']
    assert ran == [1, 2]


def test_ctrl_c_in_the_model_keeps_the_tokens_so_far(nano, monkeypatch):
    whole = nano.chat("What is 347 * 62?", effort="high")
    feed, count = ReplyBuilder.add, 0

    def interrupt(self, token):
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt
        return feed(self, token)

    monkeypatch.setattr(ReplyBuilder, "add", interrupt)
    with pytest.raises(RunInterrupted) as caught:
        Agent(nano, effort="high").run("What is 347 * 62?")
    run = caught.value.run
    assert run.stopped == "interrupted"
    assert run.replies[0].ids == whole.ids[:9]
    assert run.replies[0].unfinished


def test_a_reader_that_stops_keeps_everything_so_far(nano):
    whole = Agent(nano, [CALCULATOR], effort="medium").run("What is 4815 * 884?")
    for n in (1, 2, 5, 29):
        stream = Agent(nano, [CALCULATOR], effort="medium").stream("What is 4815 * 884?")
        for _, _event in zip(range(n), stream, strict=False):
            pass
        before = stream.run
        run = stream.close()
        assert run.stopped == before.stopped == "closed"
        ids = [id for reply in run.replies for id in reply.ids]
        assert ids == [id for reply in whole.replies for id in reply.ids][: len(ids)]
        assert ids or n < 3
        assert stream.close() == run
        assert list(stream) == []


def test_a_closed_reply_can_be_continued(nano):
    stream = nano.stream("What is 347 * 62?", effort="high", points=["resid.post"])
    events = iter(stream)
    for _ in range(20):
        next(events)
    cut = stream.cut()
    assert cut.stop == "length"
    assert cut.trace is not None
    assert len(cut.trace.tokens) == len(cut.prompt_tokens) + len(cut.ids) - 1
    whole = nano.chat(continue_from=cut)
    assert whole.ids == nano.chat("What is 347 * 62?", effort="high").ids
    assert stream.cut() is cut


def test_a_run_that_never_started():
    stream = Agent(ScriptedModel([write_answer("1")])).stream("?")
    run = stream.close()
    assert (run.stopped, run.rounds, run.final, run.seconds) == ("closed", (), None, 0.0)


def test_a_mistake_before_the_first_reply_is_raised():
    with pytest.raises(LabError, match="the script has 0 replies"):
        Agent(ScriptedModel([])).run("?")
    with pytest.raises(LabError, match="expected a question"):
        Agent(ScriptedModel([write_answer("1")])).run(3)  # pyright: ignore[reportArgumentType]


def test_a_model_that_fails_later_ends_the_run_with_the_reason():
    run: Any = Agent(ScriptedModel([write_call("functions.add", a=1, b=2)]), [add]).run("1+2?")
    assert run.stopped == "failed"
    assert run.detail.startswith("the script has 1 replies, but the conversation needs reply 2")
    assert [each.output for each in run.calls] == ["3"]


def test_a_prompt_that_outgrows_the_context_ends_the_run(nano):
    def flood(word: str) -> str:
        return "x" * 31_000

    tool = Tool.of(flood, LOOK_UP_TOOL)
    run: Any = Agent(nano, [tool], effort="high").run("Look up moon and gold and add them.")
    assert run.stopped == "failed"
    assert "context" in run.detail
    assert run.calls[0].status == "ok"


def test_an_error_of_ours_is_raised_and_the_stream_keeps_the_run():
    class Broken(ScriptedModel):
        def stream(self, question, **options):
            if count_inputs(question) == 2:  # pyright: ignore[reportArgumentType]
                raise RuntimeError("broken")
            return super().stream(question, **options)

    stream = Agent(Broken([write_call("functions.add", a=1, b=2)]), [add]).stream("?")
    with pytest.raises(RuntimeError, match="broken"):
        list(stream)
    assert (stream.run.stopped, stream.run.detail) == ("failed", "RuntimeError: broken")
    assert stream.run.calls[0].output == "3"
