"""Streams that other implementations lost or misread, as tokens of the real vocabulary."""

import json
from pathlib import Path

import pytest

from oss_lab.harmony import (
    Conversation,
    DeveloperContent,
    DiagnosticKind,
    Message,
    SystemContent,
    ToolDescription,
    make_function_tools,
    render,
)
from oss_lab.harmony import DiagnosticKind as K
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.token import Token

STREAMS = Path(__file__).resolve().parents[3] / "shared" / "cases" / "streams.json"

# For each case: the messages (channel, recipient, text), the calls that wait, the diagnostics.
Expected = tuple[list[tuple[str | None, str | None, str]], list[str], list[DiagnosticKind]]
EXPECTED: dict[str, Expected] = {
    "A1": (
        [("commentary", None, "I will look."), ("commentary", "functions.f", "{}")],
        ["functions.f"],
        [K.RECIPIENT_NOT_A_TOOL],
    ),
    "A2": ([("analysis", None, "hi"), ("final", None, "4")], [], [K.GLUED_HEADER]),
    "A3": ([("analysis", None, "hi"), (None, None, "4")], [], [K.MISSING_CHANNEL]),
    "A4": ([("final", None, "4")], [], [K.INVENTED_MESSAGE]),
    "A5": (
        [("commentary", "functions.a", "{}")],
        ["functions.a"],
        [K.MALFORMED_RECIPIENT],
    ),
    "A6": ([("commentary", None, "x")], [], [K.MALFORMED_CONTENT_TYPE, K.WRONG_STOP]),
    "A7": (
        [("commentary", "functions.a", '{"x":1}')],
        ["functions.a"],
        [K.MISSING_MESSAGE_TOKEN],
    ),
    "A9": (
        [("commentary", "functions.a", "{}")],
        ["functions.a"],
        [K.WRONG_STOP, K.UNEXPECTED_STOP],
    ),
    "A10": ([("commentary", None, "{}")], [], [K.MISSING_RECIPIENT]),
}


@pytest.fixture(scope="module")
def streams():
    if not STREAMS.exists():
        pytest.skip("the recorded streams ../shared/cases/streams.json are absent")
    return json.loads(STREAMS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", EXPECTED)
def test_a_stream_is_read_as_meant_and_reported(case, streams, o200k) -> None:
    tools = make_function_tools([ToolDescription("f"), ToolDescription("a")])
    prompt = Conversation.of(
        Message.of("system", SystemContent()),
        Message.of("developer", DeveloperContent(tools=tools)),
        Message.of("user", "?"),
    )
    builder = ReplyBuilder(o200k, prompt, ())
    for token in streams[case]["tokens"]:
        builder.add(Token(token, 0.0))
    reply = builder.finish()[1]
    messages, calls, kinds = EXPECTED[case]
    assert [(m.channel, m.recipient, m.text) for m in reply.messages] == messages
    assert [call.name for call in reply.open_calls] == calls
    assert [each.kind for each in reply.diagnostics] == kinds
    render(reply.conversation, o200k)  # the reply can be part of the next prompt


def test_every_stream_is_expected(streams) -> None:
    assert streams.keys() == EXPECTED.keys()
