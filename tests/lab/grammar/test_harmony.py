"""Harmony's grammar: whatever is sampled under it, the parser reads without a diagnostic."""

from dataclasses import replace
from random import Random

import pytest

from oss_lab.errors import LabError
from oss_lab.grammar import build_constraint
from oss_lab.harmony import (
    BROWSER,
    PYTHON,
    ChannelConfig,
    Conversation,
    DeveloperContent,
    Message,
    SystemContent,
    ToolDescription,
    find_declared_tools,
    make_function_tools,
)
from oss_lab.harmony.specials import CALL, RETURN, find_special_tokens
from oss_lab.record.builder import build_parser
from oss_lab.tokenizer import load_vocabulary

TOOLS = (ToolDescription("f"), ToolDescription("get_weather-2", "Look."), ToolDescription("f.g"))
QUESTION = Message.of("user", "What is 347 * 62?")


def prompt(*, tools=(), builtin=None, channels=None, developer=None):
    """A question with these tools; `developer` is a developer message of plain text."""
    system = SystemContent(tools=builtin)
    system = system if channels is None else replace(system, channel_config=channels)
    messages = [Message.of("system", system)]
    if tools:
        content = DeveloperContent("Be brief.", make_function_tools(tools))
        messages.append(Message.of("developer", content))
    if developer is not None:
        messages.append(Message.of("developer", developer))
    return Conversation.of(*messages, QUESTION)


PROMPTS = {
    "no tools": prompt(),
    "functions": prompt(tools=TOOLS),
    "built-in tools": prompt(tools=TOOLS[:1], builtin={"browser": BROWSER, "python": PYTHON}),
    "unknown tools": prompt(developer="namespace functions { type f = () => any; }"),
    "only final": prompt(channels=ChannelConfig(("final",))),
    "no channel demanded": prompt(channels=ChannelConfig(("analysis", "final"), False)),
    "another channel": prompt(tools=TOOLS[:1], channels=ChannelConfig(("notes", "final"))),
}


def diagnose(encoding, asked, ids):
    """The diagnostics of a reply, without those that only say that it was cut; its messages."""
    parser = build_parser(encoding, asked)
    parser.feed(ids)
    specials = find_special_tokens(encoding).ids
    if ids[-1] in (specials[RETURN], specials[CALL]):
        parser.finish()
    return parser.diagnostics, parser.messages


def check_walks(encoding, walk, count, longest):
    """Random replies to every prompt are well-formed and call declared tools only."""
    draw, specials = Random(0), find_special_tokens(encoding)
    for name, asked in PROMPTS.items():
        declared, start = find_declared_tools(asked), build_constraint(encoding, asked)
        called = set()
        for _ in range(count):
            ids = walk(start.copy(), draw, specials, longest)
            diagnostics, messages = diagnose(encoding, asked, ids)
            assert diagnostics == [], (name, encoding.decode(ids))
            called |= {message.recipient for message in messages if message.recipient}
        if declared is not None:
            assert called <= declared
            assert declared <= called or count < 100 or name == "another channel"


def test_random_replies_are_well_formed(walk):
    check_walks(load_vocabulary("nano"), walk, 200, 400)


def test_random_replies_are_well_formed_over_200000_tokens(o200k, walk):
    check_walks(o200k, walk, 3, 60)


def test_random_replies_of_bytes_are_well_formed(tiny, walk):
    check_walks(tiny, walk, 60, 400)


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>final<|message|>4<|return|>",
        "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|><|return|>",
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.f json<|message|>{}<|call|>",
        " to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
        "<|channel|>analysis to=python code<|message|>print(1)<|call|>",
        "<|channel|>analysis to=browser.search<|message|>{}<|call|>",
        "<|channel|>commentary<|message|>Hi.<|end|><|start|>assistant to=functions.f"
        "<|channel|>commentary<|message|>{}<|call|>",
    ],
)
def test_what_gpt_oss_writes_is_allowed(tiny, text):
    constraint = build_constraint(tiny, PROMPTS["built-in tools"])
    for id in tiny.encode(text, allowed_special="all"):
        assert constraint.allowed()[id], text
        constraint.accept(id)
    assert not constraint.allowed().any()


@pytest.mark.parametrize(
    "text",
    [
        "final<|message|>",
        "<|channel|>final<|message|>4<|end|>",
        "<|channel|>final<|message|>4<|channel|>",
        "<|channel|>answer<|message|>",
        "<|channel|>analysis<|message|>4<|return|>",
        "<|channel|>analysis<|message|>4<|end|><|start|>user<|message|>",
        "<|channel|>commentary to=functions.other<|message|>",
        "<|channel|>analysis to=functions.f<|message|>",
        "<|channel|>final to=functions.f<|message|>",
        "<|channel|>commentary to=functions.f<|message|>{}<|end|>",
        "<|channel|>analysis<|message|><|start|>",
        "<|channel|><|message|>",
        "<|message|>",
    ],
)
def test_what_is_malformed_is_not_allowed(tiny, accept_text, text):
    constraint = build_constraint(tiny, PROMPTS["built-in tools"])
    with pytest.raises(LabError, match="does not allow"):
        accept_text(constraint, tiny, text)


def test_a_character_is_completed_before_a_message_ends(tiny, accept_text):
    constraint = build_constraint(tiny, PROMPTS["no tools"])
    specials = find_special_tokens(tiny).ids
    accept_text(constraint, tiny, "<|channel|>analysis<|message|>")
    constraint.accept(0xE4)
    allowed = constraint.allowed().nonzero()[:, 0].tolist()
    assert not constraint.allowed()[specials["<|end|>"]]
    assert all(0x80 <= tiny.decode_single_token_bytes(id)[0] < 0xC0 for id in allowed)


def test_a_prompt_without_a_channel_for_the_answer_is_refused(tiny):
    asked = prompt(tools=TOOLS, channels=ChannelConfig(("analysis", "commentary")))
    with pytest.raises(LabError, match="needs final too; add it"):
        build_constraint(tiny, asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no tools", "functions"])
def test_nano_writes_well_formed_replies_at_high_temperatures(nano, name):
    """Without the grammar, none of the replies at temperatures 3 and 5 is well-formed."""
    asked = PROMPTS[name]
    for temperature in (2.0, 3.0, 5.0):
        options = {"temperature": temperature, "seed": 7, "max_tokens": 200, "analysis_budget": 24}
        for reply in nano.chat_batch([asked] * 25, well_formed=True, **options):
            assert diagnose(nano.tokenizer, asked, reply.ids)[0] == []
            if reply.stop != "length":
                assert reply.diagnostics == ()
        free = nano.chat_batch([asked] * 25, **options)
        found = sum(diagnose(nano.tokenizer, asked, reply.ids)[0] == [] for reply in free)
        assert found < (25 if temperature == 2 else 3)
