"""What a system message demands: replies, declared tools, channels, and fields that read back."""

import random
from collections import Counter
from typing import Any, cast

import numpy as np
import pytest
import torch

from oss_lab.errors import HarmonyError, LabError
from oss_lab.harmony import (
    Conversation,
    Delta,
    DeveloperContent,
    Diagnostic,
    Message,
    StreamParser,
    SystemContent,
    ToolDescription,
    conversation_from_dict,
    find_declared_tools,
    find_demanded_channels,
    make_function_tools,
    parse,
    render,
)
from oss_lab.harmony import DiagnosticKind as K
from oss_lab.harmony.messages import ChannelConfig
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.token import Token
from oss_lab.tokenizer import HARMONY_SPECIALS


def reply_to(encoding, prompt, text):
    builder = ReplyBuilder(encoding, prompt, ())
    events = []
    for token in encoding.encode(text, allowed_special="all"):
        events += builder.add(Token(token, 0.0))
    last, reply = builder.finish()
    return reply, events + last


def kinds_of(reply):
    return [each.kind for each in reply.diagnostics]


def declare(*names, channels=None, **fields):
    tools = make_function_tools([ToolDescription(name) for name in names])
    system = SystemContent() if channels is None else SystemContent(channel_config=channels)
    return Conversation.of(
        Message.of("system", system),
        Message.of("developer", DeveloperContent(tools=tools, **fields)),
        Message.of("user", "?"),
    )


def test_a4_a_reply_ends_before_an_invented_message(tiny):
    stream = (
        "<|channel|>final<|message|>4<|end|><|start|>user<|message|>and 5?<|end|>"
        "<|start|>assistant<|channel|>final<|message|>6<|return|>"
    )
    reply, events = reply_to(tiny, declare("f"), stream)
    assert reply.final == "4"
    assert [message.text for message in reply.messages] == ["4"]
    assert reply.conversation.messages[3:] == reply.messages
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "4"
    assert kinds_of(reply) == [K.INVENTED_MESSAGE]
    assert K.INVENTED_MESSAGE in [e.kind for e in events if isinstance(e, Diagnostic)]
    invented = "<|channel|>commentary to=functions.f<|message|>{}<|end|><|start|>functions.f"
    reply, _ = reply_to(tiny, declare("f"), f"{invented} to=assistant<|message|>1<|end|>")
    assert [call.name for call in reply.tool_calls] == ["functions.f"]
    assert kinds_of(reply) == [K.WRONG_STOP, K.INVENTED_MESSAGE]


def test_a4_generation_ends_where_an_invented_message_begins(reciting_lab):
    answer, invented = "<|channel|>final<|message|>4<|end|>", "<|start|>user<|message|>"
    reply = reciting_lab(answer + invented, *[65] * 500).chat("2 + 2?", max_tokens=400)
    assert (reply.final, reply.stop, reply.unfinished) == ("4", "invented", False)
    assert reply.text == answer + invented
    with pytest.raises(LabError, match="complete"):
        reciting_lab("4").chat(continue_from=reply)


@pytest.mark.parametrize(
    ("name", "channel", "kinds"),
    [
        ("functions.f", "commentary", []),
        ("functions.f", "analysis", [K.WRONG_CHANNEL]),
        ("functions.get_weather", "commentary", [K.UNKNOWN_RECIPIENT]),
        ("f", "commentary", [K.UNKNOWN_RECIPIENT]),
        ("functions.functions.f", "commentary", [K.UNKNOWN_RECIPIENT]),
        ("python", "analysis", [K.UNKNOWN_RECIPIENT]),
    ],
)
def test_a8_a_reply_reports_calls_of_undeclared_tools(tiny, name, channel, kinds):
    stream = f"<|channel|>{channel} to={name}<|message|>{{}}<|call|>"
    assert kinds_of(reply_to(tiny, declare("f"), stream)[0]) == kinds


def test_a8_without_a_declaration_in_fields_any_tool_is_allowed():
    assert find_declared_tools(declare("f", "g")) == {"functions.f", "functions.g"}
    assert find_declared_tools(declare()) == {"functions"}
    assert find_declared_tools([Message.of("system", SystemContent())]) == set()
    assert find_declared_tools([Message.of("user", "?")]) is None
    assert find_declared_tools([Message.of("system", "# Tools")]) is None


def test_channels_are_those_of_the_system_message(tiny):
    only = declare("f", channels=ChannelConfig(("thought", "final")))
    assert find_demanded_channels(only) == ("thought", "final")
    stream = (
        "<|channel|>{}<|message|>x<|end|><|start|>assistant<|channel|>final<|message|><|return|>"
    )
    assert kinds_of(reply_to(tiny, only, stream.format("thought"))[0]) == []
    assert kinds_of(reply_to(tiny, only, stream.format("analysis"))[0]) == [K.UNKNOWN_CHANNEL]
    free = declare("f", channels=ChannelConfig(channel_required=False))
    assert kinds_of(reply_to(tiny, free, "<|message|>x<|return|>")[0]) == []
    assert kinds_of(reply_to(tiny, declare("f"), "<|message|>x<|return|>")[0]) == [
        K.MISSING_CHANNEL
    ]


def test_a10_a_call_of_nothing_does_not_wait(tiny):
    reply, _ = reply_to(tiny, declare("f"), "<|channel|>commentary json<|message|>{}<|call|>")
    assert (reply.stop, reply.tool_calls) == ("return", ())
    assert kinds_of(reply) == [K.MISSING_RECIPIENT]


def test_a11_a_header_without_content_is_no_message(tiny):
    stream = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
    ids = tiny.encode(stream, allowed_special="all")
    header = ids.index(tiny.encode_single_token("<|message|>"))
    for length in range(1, header + 1):
        reply, _ = reply_to(tiny, declare("f"), tiny.decode(ids[:length]))
        assert reply.messages == ()
        assert kinds_of(reply) == [K.UNFINISHED_HEADER]
        assert reply.stop == "length"


def test_every_reply_can_be_rendered_again(tiny):
    """Whatever the model wrote, the next prompt contains it, and reads back the same."""
    rng, words = random.Random(0), ["to=", "to=functions.f", "to=user", "json", " ", "?", "final"]
    words += [*HARMONY_SPECIALS, "functions.f", "commentary", "assistant", ":", "<|x|>", "all", "a"]
    seen = Counter()
    for _ in range(2_000):
        text = "<|channel|>" + "".join(rng.choices(words, k=rng.randrange(16)))
        reply, _ = reply_to(tiny, declare("f"), text)
        tokens = render(
            Conversation(reply.messages), tiny, mode="conversation", policy="keep"
        ).tokens
        assert parse(tokens, tiny) == list(reply.messages), text
        seen[len(reply.messages)] += 1
    assert seen[0] < 1_000
    assert seen[1] > 100
    assert seen[2] > 20


REFUSED = ["system", "tool", "", "a b", " a", "a\n", "<|end|>", "user:x", "to=f", "a\u2003b"]


@pytest.mark.parametrize("name", REFUSED)
def test_a13_tool_names_that_forge_a_header_are_refused(tiny, name):
    call = Message.of("assistant", "{}", channel="commentary", recipient=name)
    output = Message.of("tool", "1", name=name, channel="commentary", recipient="assistant")
    for message in (output, call):
        if message is call and name == "user:x":
            continue  # as a recipient it is only a strange name
        with pytest.raises(HarmonyError, match=r"messages\[0\]: the "):
            render(Conversation.of(message), tiny)
        render(Conversation.of(message), tiny, layout="library")  # as openai-harmony


@pytest.mark.parametrize(
    "fields",
    [
        {"channel": ""},
        {"channel": "a b"},
        {"channel": "<|message|>"},
        {"channel": "to=f"},
        {"channel": "finaljson"},
        {"content_type": ""},
        {"content_type": "a b"},
        {"content_type": "<|constrain|>json x"},
        {"content_type": "<|constrain|>2?"},
        {"recipient": "all"},
        {"recipient": ""},
        {"name": ""},
        {"name": "a b"},
        {"name": "<|end|>"},
        {"name": "system"},
    ],
)
def test_a13_header_fields_that_would_be_read_differently_are_refused(tiny, fields):
    message = Message.of("assistant", "x", **({"channel": "final"} | fields))
    with pytest.raises(HarmonyError, match=r"messages\[0\]: the "):
        render(Conversation.of(message), tiny)


@pytest.mark.parametrize("given", ["42", b"42", ["4", "2"], [4, None], None, 4.5, [4.5]])
def test_a18_text_is_refused(tiny, given):
    for action in (parse, lambda given, encoding: StreamParser(encoding).feed(given)):
        with pytest.raises(HarmonyError, match="expected token ids, got"):
            action(given, tiny)


def test_a18_ids_of_every_integer_type_are_accepted(tiny):
    ids = tiny.encode("<|start|>user<|message|>x<|end|>", allowed_special="all")
    for each in (ids, tuple(ids), iter(ids), np.array(ids), cast(Any, torch.tensor(ids))):
        assert parse(each, tiny) == [Message.of("user", "x")]


@pytest.mark.parametrize("words", ["to=assistant foo", "to=all functions.f", "to=<|x foo"])
@pytest.mark.parametrize("place", ["<|channel|>commentary {}", " {}<|channel|>commentary"])
def test_words_after_a_dropped_recipient_are_not_rendered(tiny, words, place):
    stream = f"{place.format(words)}<|message|>x<|end|>"
    reply, _ = reply_to(tiny, declare("f"), stream)
    assert reply.messages == (Message.of("assistant", "x", channel="commentary"),)
    assert reply.diagnostics
    render(reply.conversation, tiny)


def test_ids_outside_the_vocabulary_are_encoded_again(tiny):
    for wrong in (-1, tiny.n_vocab, 2**40):
        ids = [*tiny.encode("<|start|>user<|message|>x", allowed_special="all"), wrong]
        message = parse(ids, tiny)[0]
        assert message.text == "x\ufffd"
        tokens = render(Conversation.of(message), tiny, mode="conversation").tokens
        assert parse(tokens, tiny) == [message]


# Vectors whose rendering deviates from the format on purpose, and how.
DEVIATING = {
    "recipient_all": {K.MISSING_RECIPIENT},  # ends in <|call|>, but calls nothing
    "training_final_with_recipient": {K.RECIPIENT_NOT_A_TOOL},  # an answer `to=user`
    # A recipient and a channel that contain the text of special tokens: neither is a name.
    "special_tokens_in_header_fields": {
        K.UNKNOWN_CHANNEL,
        K.MALFORMED_RECIPIENT,
        K.MISSING_RECIPIENT,
    },
}


def test_recorded_renderings_are_well_formed(golden, o200k):
    found, count = {}, 0
    for vector in golden("harmony_render.json")["vectors"]:
        if vector["error"] is None:
            count += 1
            tools = find_declared_tools(conversation_from_dict(vector["conversation"]))
            parser = StreamParser(o200k, None, recipients=tools)
            parser.feed(vector["tokens"])
            parser.finish()
            if parser.diagnostics:
                found[vector["name"]] = {each.kind for each in parser.diagnostics}
    assert count == 60
    assert found == DEVIATING
