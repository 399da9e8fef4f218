"""The loop: replies and calls in order, the chain of thought between them, and toolboxes."""

import json
import threading
from contextlib import contextmanager
from typing import Any

import pytest

from oss_lab.agents import (
    Agent,
    CallEnded,
    CallStarted,
    ReplyDelta,
    ReplyEnded,
    ReplyStarted,
    ScriptedModel,
    Stopped,
    Tool,
    event_to_dict,
    run_from_dict,
    run_to_dict,
    write_answer,
    write_call,
)
from oss_lab.errors import LabError
from oss_lab.grammar import Regex
from oss_lab.harmony import Conversation, Delta, ToolDescription, ToolNamespace
from oss_lab.harmony.specials import CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START
from oss_lab.nano import gallery
from oss_lab.nano.calculator import calculate
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL, LOOK_UP_TOOL

CALCULATOR = Tool.of(calculate, CALCULATOR_TOOL)
WORDS = {"moon": 34, "gold": 36, "ship": 31}
LOOK_UP = Tool.of(lambda word: WORDS[word], LOOK_UP_TOOL)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def decode(model, reply):
    return model.tokenizer.decode(reply.prompt_tokens)


# nano, with tools that it learned to use


def test_the_calculator_solves_what_nano_alone_cannot(nano):
    question = "What is 4815 * 884?"
    assert "4256460" not in nano.chat(question, effort="medium").final
    run = Agent(nano, [CALCULATOR], effort="medium").run(question)
    assert run.stopped == "answer"
    assert run.final == "4256460"
    assert [(each.status, each.output) for each in run.calls] == [("ok", "4256460")]
    assert run.calls[0].call.arguments == '{"expression":"4815*884"}'


@pytest.mark.parametrize("form", [Regex("[0-9]{1,4}"), {"type": "integer", "maximum": 9999}])
def test_an_answer_has_the_response_format_after_a_call(nano, form):
    """The sum does not fit; the calls come as they would without the format."""
    run = Agent(nano, [CALCULATOR], effort="medium", response_format=form).run(
        "What is 4815 * 884?"
    )
    assert [each.output for each in run.calls] == ["4256460"]
    assert run.final is not None
    assert 0 <= int(run.final) <= 9999
    assert run.replies[0].prompt == run.prompt
    assert ("# Response Formats" in decode(nano, run.replies[0])) == isinstance(form, dict)


def test_one_call_after_the_other_with_the_running_total_in_the_analysis(nano):
    example = next(each for each in gallery.GALLERY if each.name == "sum of three look-ups")
    run = Agent(nano, [LOOK_UP], effort="high").run(example.question)
    assert run.final == example.answer == str(sum(WORDS.values()))
    assert [each.output for each in run.calls] == ["34", "36", "31"]
    known = gallery.ask(nano, example)
    assert [each.ids for each in run.replies] == [each.ids for each in known]


def test_each_prompt_begins_with_the_ids_of_all_before_it(nano):
    """The chain of thought is kept between the calls, token for token."""
    run = Agent(nano, [LOOK_UP], effort="high").run("Look up moon, gold and ship and add them.")
    assert len(run.replies) == 4
    for before, after in zip(run.replies, run.replies[1:], strict=False):
        whole = (*before.prompt_tokens, *before.ids)
        assert after.prompt_tokens[: len(whole)] == whole
    assert any(reply.analysis for reply in run.replies[:-1])


def test_the_chain_of_thought_is_gone_after_the_answer(nano):
    agent = Agent(nano, [LOOK_UP], effort="high")
    run = agent.run("Look up moon and gold and add them.")
    thoughts = [each.analysis for each in run.replies if each.analysis]
    assert thoughts
    after = agent.run(run.follow_up("Look up ship and moon and add them."))
    prompt = decode(nano, after.replies[0])
    assert not any(thought in prompt for thought in thoughts)
    assert f"{CHANNEL}analysis" not in prompt.partition(f"{START}user")[2]
    assert prompt.count(CALL) == 2  # the calls and their outputs stay
    ids = nano.render(Conversation(after.prompt.messages))[0]
    assert after.replies[0].prompt_tokens == tuple(ids)


def test_dropped_reasoning_differs_from_kept_only_between_the_calls(nano):
    question = "Look up moon, gold and ship and add them."
    kept = Agent(nano, [LOOK_UP], effort="medium").run(question)
    dropped = Agent(nano, [LOOK_UP], effort="medium", drop_reasoning=True).run(question)
    assert kept.final == "101"
    assert dropped.final != "101"
    assert kept.replies[0].ids == dropped.replies[0].ids
    thought = next(each.analysis for each in kept.replies if each.analysis)
    assert thought in decode(nano, kept.replies[-1])
    assert thought not in decode(nano, dropped.replies[-1])
    assert dropped.dropped_reasoning
    assert thought in {each.analysis for each in dropped.replies}  # in the run, not in the prompt


def test_two_runs_in_two_threads(nano):
    agent = Agent(nano, [CALCULATOR], effort="medium")
    questions = [f"What is {n} * 884?" for n in (4815, 7313)]
    alone = [agent.run(each) for each in questions]
    found = {}

    def ask(question):
        found[question] = agent.run(question)

    threads = [threading.Thread(target=ask, args=(each,)) for each in questions]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for question, run in zip(questions, alone, strict=True):
        assert found[question].final == run.final
        assert found[question].conversation == run.conversation
        assert found[question].replies[-1].prompt_tokens == run.replies[-1].prompt_tokens


# A scripted model, for what nano never learned


SEVERAL = (
    write_call("functions.add", a=1, b=2, thinking="Two sums.", last=False)
    + write_call("functions.add", a=3, b=4, last=False)
    + write_call("functions.add", a=5, b=6)
)


def test_several_calls_in_a_reply_are_answered_in_order():
    model = ScriptedModel([SEVERAL, write_answer("3, 7, 11")])
    run = Agent(model, [add]).run("Three sums?")
    assert [each.output for each in run.calls] == ["3", "7", "11"]
    assert run.final == "3, 7, 11"
    roles = [message.role for message in run.conversation]
    assert roles == ["system", "developer", "user", *["assistant"] * 4, *["tool"] * 3, "assistant"]
    prompt = decode(model, run.replies[1])
    header = f"{START}functions.add to=assistant{CHANNEL}commentary{MESSAGE}"
    outputs = [f"{header}{n}{END}" for n in (3, 7, 11)]
    assert prompt.endswith("".join(outputs) + f"{START}assistant")


def test_the_events_tell_the_whole_run():
    model = ScriptedModel([write_call("functions.add", a=1, b=2), write_answer("3")])
    stream = Agent(model, [add]).stream("1+2?")
    events = list(stream)
    kinds = [type(event) for event in events if not isinstance(event, ReplyDelta)]
    assert kinds == [
        ReplyStarted, ReplyEnded, CallStarted, CallEnded, ReplyStarted, ReplyEnded, Stopped
    ]  # fmt: skip
    deltas = [each for each in events if isinstance(each, ReplyDelta) and each.reply == 1]
    assert "".join(each.event.text for each in deltas if isinstance(each.event, Delta)) == "3"
    assert list(stream.run.events) == [
        each for each in events if isinstance(each, ReplyEnded | CallEnded | Stopped)
    ]
    assert [event_to_dict(each)["event"] for each in stream.run.events] == [
        "reply_ended", "call_ended", "reply_ended", "stopped"
    ]  # fmt: skip
    assert list(stream) == []  # it is read once


def test_every_event_is_json(nano):
    def fail(a: int) -> int:
        raise ValueError(a)

    calls = write_call("functions.fail", a=1, thinking="Hm, ü.", last=False)
    model = ScriptedModel([calls + write_call("functions.other"), write_answer("3")])
    events = [*Agent(model, [fail]).stream("?"), *Agent(nano).stream("What is 3 * 4?")]
    kinds = set()
    for event in events:
        data = json.loads(json.dumps(event_to_dict(event), allow_nan=False))
        kinds.add(data["event"])
        if isinstance(event, CallEnded):
            assert data["call"]["name"] == event.record.call.name
            assert data["output"] == event.record.output
    assert kinds == {
        "reply_started", "reply_delta", "reply_ended", "call_started", "call_ended", "stopped"
    }  # fmt: skip


def test_the_model_gets_the_diagnosis_and_can_correct_the_call():
    wrong = write_call("functions.add", '{"a": 1, "b": "two"}')

    def correct(conversation: Conversation) -> str:
        assert "b is 'two'" in conversation.messages[-1].text
        return write_call("functions.add", a=1, b=2)

    run = Agent(ScriptedModel([wrong, correct, write_answer("3")]), [add]).run("1+two?")
    assert [each.status for each in run.calls] == ["malformed", "ok"]
    assert run.final == "3"


def test_a_long_output_is_cut_with_a_remark():
    def repeat(n: int) -> str:
        return "x" * n

    model = ScriptedModel([write_call("functions.repeat", n=30), write_answer("x")])
    run = Agent(model, [repeat], longest_output=10).run("?")
    assert run.calls[0].output == "x" * 10 + "\n[20 more characters were cut]"
    assert run.calls[0].cut == 20


def test_a_call_on_analysis_is_answered_there():
    call = write_call("functions.add", a=1, b=2, channel="analysis")
    model = ScriptedModel([call, write_answer("3")])
    run = Agent(model, [add]).run("?")
    assert run.conversation.messages[-2].channel == "analysis"
    assert run.stopped == "answer"


def test_a_call_without_a_recipient_ends_with_the_diagnosis():
    reply = f'{CHANNEL}commentary {CONSTRAIN}json{MESSAGE}{{"a":1,"b":2}}{CALL}'
    run: Any = Agent(ScriptedModel([reply]), [add]).run("?")
    assert run.stopped == "no answer"
    assert "names no recipient" in run.detail
    assert run.calls == ()


def test_a_reply_without_answer_or_call():
    run = Agent(ScriptedModel([f"{CHANNEL}analysis{MESSAGE}Hm.{RETURN}"])).run("?")
    assert run.stopped == "no answer"
    assert run.detail == "<|return|> ends a message on analysis; expected <|end|>"
    assert run.replies[0].analysis == "Hm."


def test_a_reply_without_tokens_ends_the_run_and_keeps_the_calls_before():
    model = ScriptedModel([write_call("functions.add", a=1, b=2), ""])
    run = Agent(model, [add]).run("1+2?")
    assert run.stopped == "length"
    assert [each.output for each in run.calls] == ["3"]
    assert [len(each.tokens) > 0 for each in run.replies] == [True, False]
    assert run_from_dict(run_to_dict(run)).conversation == run.conversation


def test_an_output_that_the_model_makes_up_is_replaced_by_the_real_one():
    made_up = (
        f'{CHANNEL}commentary to=functions.add {CONSTRAIN}json{MESSAGE}{{"a":1,"b":2}}{END}'
        f"{START}functions.add to=assistant{CHANNEL}commentary{MESSAGE}99{END}"
        f"{START}assistant{CHANNEL}final{MESSAGE}99{RETURN}"
    )
    run = Agent(ScriptedModel([made_up, write_answer("3")]), [add]).run("1+2?")
    assert run.replies[0].stop == "invented"
    assert run.calls[0].output == "3"
    assert run.final == "3"


# Toolboxes


class Counter:
    """A toolbox whose state is a number."""

    namespace = ToolNamespace("counter", "Counts.", (ToolDescription("next", "Counts on."),))

    def __init__(self):
        self.closed = 0

    def open(self):
        @contextmanager
        def opened():
            state = [0]

            def count() -> int:
                state[0] += 1
                return state[0]

            try:
                yield {"counter.next": Tool(self.namespace.tools[0], count)}
            finally:
                self.closed += 1

        return opened()


COUNTING = [write_call("counter.next"), write_call("counter.next"), write_answer("2")]


def test_a_toolbox_is_declared_in_the_system_message_and_fresh_in_each_run():
    counter = Counter()
    agent = Agent(ScriptedModel(COUNTING), [counter, add])
    for n in (1, 2):
        run = agent.run("?")
        assert [each.output for each in run.calls] == ["1", "2"]
        assert counter.closed == n
    text = decode(agent.model, run.replies[0])
    assert "## counter" in text.partition("<|end|>")[0]
    assert "## functions" in text.partition("<|end|>")[2]
    assert run.replies[0].diagnostics == ()


def test_a_session_keeps_the_state_of_a_toolbox():
    counter = Counter()
    with Agent(ScriptedModel(COUNTING), [counter]).session() as session:
        first, second = session.run("?"), session.run("?")
        assert [each.output for each in (*first.calls, *second.calls)] == ["1", "2", "3", "4"]
        assert counter.closed == 0
    assert counter.closed == 1


def test_a_toolbox_is_closed_when_the_reader_stops():
    counter = Counter()
    stream = Agent(ScriptedModel(COUNTING), [counter]).stream("?")
    next(iter(stream))
    stream.close()
    assert counter.closed == 1


def test_two_toolboxes_with_one_name_are_refused():
    with pytest.raises(LabError, match="more than one toolbox 'counter'"):
        Agent(ScriptedModel([]), [Counter(), Counter()])
