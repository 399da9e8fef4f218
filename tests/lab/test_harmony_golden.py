"""Every recorded vector of openai-harmony 0.0.8: all tokens and all parser states match."""

import time

import pytest

from oss_lab.errors import HarmonyError
from oss_lab.harmony import LibraryParser, conversation_from_dict, plain_message, render

STEP = ("state", "role", "channel", "recipient", "content_type", "last_content_delta")


def test_every_rendering(golden, o200k):
    vectors = golden("harmony_render.json")["vectors"]
    assert len(vectors) == 64
    for vector in vectors:
        options = vector["options"]
        try:
            rendered = render(
                conversation_from_dict(vector["conversation"]),
                o200k,
                mode=options["mode"],
                policy="library" if options.get("auto_drop_analysis", True) else "keep",
                layout="library",
                next_role=options.get("next_turn_role", "assistant"),
                function_tools=options.get("conversation_has_function_tools"),
            )
        except HarmonyError:
            assert vector["error"], vector["name"]
        else:
            assert not vector["error"], vector["name"]
            assert rendered.tokens == vector["tokens"], vector["name"]
            assert rendered.text == vector["rendered_text"], vector["name"]


def step_of(parser, action, *arguments):
    error = None
    try:
        action(*arguments)
    except (HarmonyError, OverflowError) as caught:
        error = {"type": type(caught).__name__, "message": str(caught)}
    return {
        "state": parser.state,
        "role": parser.current_role,
        "channel": parser.current_channel,
        "recipient": parser.current_recipient,
        "content_type": parser.current_content_type,
        "last_content_delta": parser.last_content_delta,
        "n_messages": len(parser.messages),
        "current_content": parser.current_content,
        "error": error,
    }


def test_every_stream_step_by_step(golden, o200k):
    vectors = golden("harmony_stream.json")["vectors"]
    assert len(vectors) == 68
    for vector in vectors:
        parser = LibraryParser(o200k, vector["role"], vector["strict"])
        for token, expected in zip(vector["tokens"], vector["steps"], strict=True):
            step = step_of(parser, parser.process, token) | {"token": token}
            assert step == expected, vector["name"]
        assert step_of(parser, parser.process_eos) == vector["eos"], vector["name"]
        messages = [plain_message(message) for message in parser.messages]
        assert messages == vector["messages"], vector["name"]


def test_an_endless_header_takes_constant_time_per_token(tiny):
    """Its text used to be copied in full at every token, which took 13 s for these tokens."""
    parser = LibraryParser(tiny, "assistant", strict=False)
    begin = time.process_time()
    for _ in range(200_000):
        parser.process(tiny.encode_single_token("<|constrain|>"))
    with pytest.raises(HarmonyError, match="unexpected tokens remaining"):
        parser.process(tiny.encode_single_token("<|message|>"))
    assert time.process_time() - begin < 5.0
