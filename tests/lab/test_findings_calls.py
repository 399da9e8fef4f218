"""Calls are graded against the tool's declaration, and dropping reasoning drops it between calls
only."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from oss_lab.harmony.messages import Conversation, Message
from oss_lab.lab import Lab
from oss_lab.nano.studies.calls import is_valid
from oss_lab.nano.studies.dropped import EFFORT, grade_conversations
from oss_lab.nano.studies.problems import draw_problems
from oss_lab.nano.tasks.settings import LOOK_UP, make_look_up_tool
from oss_lab.nano.tasks.tool_sum import ToolSum
from oss_lab.record.calls import build_output_messages
from oss_lab.record.reply import Reply, Stop, Timing, ToolCall


@pytest.mark.parametrize(
    ("name", "arguments", "channel", "valid"),
    [
        ("functions.calculator", '{"expression":"3*4"}', "commentary", True),
        ("functions.calculator", '{"expression": "x"}', "commentary", True),
        ("functions.calculator", '{"expression":"3*4"}', "analysis", False),
        ("functions.get_time", '{"expression":"3*4"}', "commentary", False),
        ("functions.calculator", '{"expression":12}', "commentary", False),
        ("functions.calculator", '{"expression":"1","more":"2"}', "commentary", False),
        ("functions.calculator", '["expression"]', "commentary", False),
        ("functions.calculator", '{"expression":"3*4"', "commentary", False),
        ("functions.calculator", "", "commentary", False),
    ],
)
def test_a_call_is_valid_if_it_fits_the_declaration(name, arguments, channel, valid):
    assert is_valid(ToolCall(name, arguments, channel)) is valid


class Follower(Lab):
    """A lab that makes the right calls, and adds correctly only if it sees its earlier analyses."""

    def __init__(self, problems):
        self.problems = {problem.question: problem for problem in problems}

    def chat_batch(self, questions: Sequence[Any], draws: Any = None, **_: Any) -> list[Reply]:
        return [self.reply(prompt) for prompt in questions]

    def reply(self, prompt: Conversation) -> Reply:
        question = next(m.text for m in prompt if m.role == "user")
        problem = self.problems[question]
        answered = sum(m.role == "tool" for m in prompt)
        thought = sum(m.channel == "analysis" for m in prompt)
        if answered < len(problem.calls):
            call = problem.calls[answered]
            said = Message.of(
                "assistant", call.arguments, channel="commentary", recipient=call.tool
            )
            stop: Stop = "call"
        else:
            said = Message.of(
                "assistant", problem.answer if thought == answered else "0", channel="final"
            )
            stop = "return"
        analysis = Message.of("assistant", "so far", channel="analysis")
        return Reply(prompt, (), (), "", (analysis, said), stop, (), Timing(0, 0, 0))


def test_reasoning_is_kept_or_dropped_between_calls():
    problems = draw_problems(ToolSum(3), 5, Random(0), make_look_up_tool)
    lab = Follower(problems)
    assert grade_conversations(lab, problems, keep=True) == [True] * 5
    assert grade_conversations(lab, problems, keep=False) == [False] * 5


def test_outputs_answer_all_calls_or_none():
    problem = draw_problems(ToolSum(2), 1, Random(0), make_look_up_tool)[0]
    prompt = problem.prompt(EFFORT)

    def make_reply(*arguments: str, stop: Stop = "call") -> Reply:
        said = tuple(
            Message.of("assistant", text, channel="commentary", recipient=LOOK_UP)
            for text in arguments
        )
        return Reply(prompt, (), (), "", said, stop, (), Timing(0, 0, 0))

    right = problem.calls[0].arguments
    (output,) = build_output_messages(make_reply(right), problem.tool_output)
    assert (output.text, output.role) == (problem.calls[0].output, "tool")
    assert (output.author.name, output.recipient) == (LOOK_UP, "assistant")
    assert (
        build_output_messages(make_reply(right, json.dumps({"word": "?"})), problem.tool_output)
        == []
    )
    assert build_output_messages(make_reply(right, stop="length"), problem.tool_output) == []
    assert build_output_messages(make_reply(), problem.tool_output) == []
