"""Questions with tools: outputs that are fed back, and calls that nothing can answer."""

import pytest

from oss_lab.engine.sampling import Sampling
from oss_lab.evaluation.grade import WrittenAnswer
from oss_lab.evaluation.question import FileQuestion, Tool
from oss_lab.harmony import ToolDescription
from oss_lab.record.calls import ROUNDS

ANSWER = "<|channel|>final<|message|>{}<|return|>"
CALL = "<|channel|>commentary to=functions.{} <|constrain|>json<|message|>{{}}<|call|>"

ADD = Tool(ToolDescription("add"), "9")
OFF = Tool(ToolDescription("off"))


def test_outputs_are_fed_back(answering_lab, run_evaluation):
    seen = []

    def say(prompt, draw):
        last = prompt.messages[-1]
        if last.role == "tool":
            seen.append((last.author.name, last.text, last.channel, last.recipient))
            return ANSWER.format(last.text)
        return "<|channel|>analysis<|message|>ab<|end|><|start|>assistant" + CALL.format("add")

    questions = [FileQuestion("q", "4+5?", WrittenAnswer("9"), tools=(ADD,)) for _ in range(3)]
    found = run_evaluation(answering_lab(say), questions)
    assert seen == [("functions.add", "9", "commentary", "assistant")] * 3
    assert {(o.right, o.final, o.calls, o.stop, o.analysis_tokens) for o in found} == {
        (True, "9", 1, "return", 2)
    }


@pytest.mark.parametrize(("name", "calls"), [("off", 0), ("unknown", 0), ("add", ROUNDS - 1)])
def test_calls_that_cannot_be_answered_end_the_reply(answering_lab, name, calls, run_evaluation):
    lab = answering_lab(lambda *_: CALL.format(name))
    (found,) = run_evaluation(lab, [FileQuestion("q", "?", WrittenAnswer("9"), tools=(ADD, OFF))])
    assert (found.right, found.final, found.stop) == (False, None, "call")
    assert found.calls == calls
    assert len(lab.batches) == 1 + calls


def test_a_call_without_recipient_is_not_answered(answering_lab, run_evaluation):
    lab = answering_lab(lambda *_: "<|channel|>commentary<|message|>{}<|call|>")
    (found,) = run_evaluation(lab, [FileQuestion("q", "?", WrittenAnswer("9"), tools=(ADD,))])
    assert (found.stop, found.calls, len(lab.batches)) == ("return", 0, 1)
    assert found.diagnostics == {"missing_recipient": 1}


def test_a8_a_call_of_an_undeclared_tool_is_reported(answering_lab, run_evaluation):
    lab = answering_lab(lambda *_: CALL.format("get_weather"))
    (found,) = run_evaluation(lab, [FileQuestion("q", "?", WrittenAnswer("9"), tools=(ADD,))])
    assert found.diagnostics == {"unknown_recipient": 1}
    assert (found.stop, found.right) == ("call", False)


def test_an_output_that_fills_the_context_truncates_the_reply(answering_lab, run_evaluation):
    flood = Tool(ToolDescription("add"), "7" * 9000)
    lab = answering_lab(lambda *_: CALL.format("add"))
    (found,) = run_evaluation(lab, [FileQuestion("q", "?", WrittenAnswer("9"), tools=(flood,))])
    assert (found.stop, found.right) == ("length", False)


def test_draws_in_later_rounds_do_not_depend_on_the_batch(
    answering_lab, make_questions, run_evaluation
):
    draws = set(), set()

    def say(prompt, draw):
        later = prompt.messages[-1].role == "tool"
        draws[later].add(draw)
        if later:
            return ANSWER.format(draw)
        return CALL.format("add") if int(prompt.messages[-1].text[0]) % 3 else ANSWER.format(draw)

    def finals(batch):
        lab = answering_lab(say, sampling=Sampling())
        return [o.final for o in run_evaluation(lab, make_questions(9, tools=(ADD,)), batch=batch)]

    assert finals(1) == finals(4) == finals(64)
    assert len(set(finals(4))) == 9
    assert (len(draws[0]), len(draws[1]), draws[0] & draws[1]) == (9, 6, set())
