"""Replies built from given tokens: channels, calls, stop reasons, malformed parts, budgets."""

import math

import pytest

from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Delta, End, Message, Start
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.reply import Timing
from oss_lab.record.token import Token

PROMPT = Conversation.of(Message.of("user", "6*7?"))
THOUGHT = "<|channel|>analysis<|message|>six sevens<|end|>"
ANSWER = "<|start|>assistant<|channel|>final<|message|>42<|return|>"


@pytest.fixture
def feed(tiny):
    """`feed(text)`: the reply built from these tokens, and the events that they caused."""

    def run(text):
        builder = ReplyBuilder(tiny, PROMPT, (1, 2))
        events = []
        for id in tiny.encode(text, allowed_special="all"):
            events += builder.add(Token(id, -0.5))
        last, reply = builder.finish()
        return reply, events + last

    return run


def kinds(reply):
    return [str(diagnostic.kind) for diagnostic in reply.diagnostics]


def test_channels(feed, tiny):
    reply, events = feed(THOUGHT + ANSWER)
    assert (reply.analysis, reply.commentary, reply.final) == ("six sevens", "", "42")
    assert (reply.stop, reply.tool_calls, reply.diagnostics) == ("return", (), ())
    assert [message.channel for message in reply.messages] == ["analysis", "final"]
    assert [type(event) for event in events if isinstance(event, Start | End)] == [Start, End] * 2
    shown = "".join(event.text for event in events if isinstance(event, Delta))
    assert shown == "six sevens42"
    assert reply.ids == tuple(tiny.encode(THOUGHT + ANSWER, allowed_special="all"))
    assert reply.prompt_tokens == (1, 2)
    assert reply.conversation.messages == (*PROMPT.messages, *reply.messages)


def test_messages_of_one_channel_are_joined_by_lines(feed):
    again = "<|start|>assistant<|channel|>analysis<|message|>so 42<|end|>"
    assert feed(THOUGHT + again + ANSWER)[0].analysis == "six sevens\nso 42"


def test_a11_a_message_that_is_cut_before_its_first_character_is_not_kept(feed):
    for text in ("<|channel|>final<|message|>", "<|channel|>commentary to=f<|message|>"):
        assert feed(text)[0].conversation == PROMPT
        assert len(feed(THOUGHT + f"<|start|>assistant{text}")[0].conversation) == 2
    assert len(feed("<|channel|>final<|message|>4")[0].conversation) == 2
    assert len(feed("<|channel|>final<|message|><|return|>")[0].conversation) == 2


def test_tool_calls_in_both_layouts(feed):
    call = (
        "<|start|>assistant<|channel|>commentary to=functions.times <|constrain|>json"
        '<|message|>{"a": 6}<|call|>'
    )
    reply, _ = feed(THOUGHT + call)
    (found,) = reply.tool_calls
    assert (found.name, found.arguments, found.channel) == (
        "functions.times",
        '{"a": 6}',
        "commentary",
    )
    assert (reply.stop, reply.commentary, reply.final) == ("call", "", "")
    library = " to=functions.f<|channel|>commentary<|message|>{}<|call|>"
    assert feed(library)[0].tool_calls[0].name == "functions.f"


def test_a_preamble_is_commentary(feed):
    preamble = "<|channel|>commentary<|message|>I shall look.<|end|>"
    assert feed(preamble)[0].commentary == "I shall look."


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        (THOUGHT + ANSWER, "return"),
        ("<|channel|>final<|message|>42<|endoftext|>", "endoftext"),
        ("<|channel|>final<|message|>4", "length"),
        (THOUGHT, "length"),  # the message is complete, the turn is not
        (THOUGHT + "<|start|>", "length"),
        ("<|channel|>", "length"),
        ("", "length"),
    ],
)
def test_the_stop_reason(feed, text, stop):
    assert feed(text)[0].stop == stop


@pytest.mark.parametrize(
    ("text", "expected", "final"),
    [
        ("<|channel|>final<|message|>4", ["unfinished_message"], "4"),
        ("<|channel|>final", ["unfinished_header"], ""),
        (
            "<|channel|>final<|message|>4<|start|>assistant",
            ["missing_end", "unfinished_header"],
            "4",
        ),
        ("<|channel|>final<|message|>4<|return|>x", ["text_between_messages"], "4"),
        ("<|channel|>aside<|message|>4<|return|>", ["unknown_channel"], ""),
        ("<|channel|>final<|message|>4<|message|>2<|return|>", ["special_in_content"], None),
    ],
)
def test_malformed_parts_are_reported(feed, text, expected, final):
    reply, _ = feed(text)
    assert kinds(reply) == expected
    assert final is None or reply.final == final


def test_text_of_another_role_is_not_the_answer(feed):
    other = "<|start|>user<|channel|>final<|message|>Thanks!<|return|>"
    reply, _ = feed(THOUGHT + other)
    assert reply.final == ""
    assert [message.channel for message in reply.messages] == ["analysis"]
    assert kinds(reply) == ["invented_message", "wrong_stop"]


def test_an_id_outside_the_vocabulary_is_reported(tiny):
    builder = ReplyBuilder(tiny, PROMPT, ())
    for id in [*tiny.encode("<|channel|>final<|message|>", allowed_special="all"), 9999]:
        builder.add(Token(id, 0.0))
    reply = builder.finish()[1]
    assert kinds(reply) == ["unknown_token", "unfinished_message"]
    assert reply.final == "\ufffd"


def with_budget(tiny, budget, text):
    """The reply under a budget if the model would repeat `text` endlessly."""
    builder = ReplyBuilder(tiny, PROMPT, (), budget)
    own, forced = iter(tiny.encode(text, allowed_special="all") * 3), []
    while len(builder.tokens) < 60:
        forced = forced or builder.next_forced_ids()
        token = Token(forced.pop(0), 0.0, forced=True) if forced else Token(next(own), 0.0)
        builder.add(token)
        if tiny.decode([token.id]) in ("<|return|>", "<|call|>"):
            break
    return builder.finish()[1]


@pytest.mark.parametrize("budget", [0, 1, 4])
def test_a_budget_starts_the_answer(tiny, budget):
    reply = with_budget(tiny, budget, "<|channel|>analysis<|message|>12345678<|return|>")
    assert reply.analysis == "12345678"[:budget]
    assert reply.final == "12345678"[budget:]
    forced = tiny.decode([token.id for token in reply.tokens if token.forced])
    assert forced == "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert reply.diagnostics == ()


def test_an_unused_budget_changes_nothing(tiny):
    reply = with_budget(tiny, 99, THOUGHT + ANSWER)
    assert (reply.analysis, reply.final) == ("six sevens", "42")
    assert not any(token.forced for token in reply.tokens)


def test_arguments_of_a_tool_on_the_analysis_channel_are_not_analysis(tiny):
    call = "<|channel|>analysis to=python<|message|>print(6 * 7)<|call|>"
    reply = with_budget(tiny, 2, call)
    assert reply.tool_calls[0].arguments == "print(6 * 7)"


def test_a_negative_budget_is_refused(tiny):
    with pytest.raises(LabError, match="analysis_budget is -1"):
        ReplyBuilder(tiny, PROMPT, (), -1)


def test_raw_text_has_no_channels_and_no_stop_token(tiny):
    builder = ReplyBuilder(tiny, None, (1,))
    ids = tiny.encode("and 4\U0001f600<|endoftext|>", allowed_special="all")
    events = [event for id in ids for event in builder.add(Token(id, -0.5))]
    reply = builder.finish()[1]
    assert (reply.text, reply.stop, reply.ids) == ("and 4\U0001f600", "endoftext", tuple(ids))
    assert "".join(event.text for event in events if isinstance(event, Delta)) == reply.text
    assert (reply.analysis, reply.commentary, reply.final) == (None, None, None)
    assert (reply.messages, reply.tool_calls, reply.diagnostics) == ((), (), ())
    assert reply.logprobs == (-0.5,) * len(ids)


@pytest.mark.parametrize("is_raw", [False, True])
def test_a_stop_string_ends_the_answer_and_is_left_out_of_it(tiny, is_raw):
    begin = "" if is_raw else THOUGHT + "<|start|>assistant<|channel|>final<|message|>"
    builder = ReplyBuilder(tiny, None if is_raw else PROMPT, (1,), stop=["seven", "c d", "z"])
    for id in tiny.encode(begin + "a bc de", allowed_special="all"):
        assert not builder.is_stopped  # not while "sevens" is in the analysis
        builder.add(Token(id, 0.0))
        if builder.is_stopped:
            break
    reply = builder.finish()[1]
    assert reply.stop == "text"
    assert (reply.text if is_raw else reply.final) == "a b"
    assert is_raw or reply.analysis == "six sevens"


def test_timing():
    assert Timing(first_token=0.5, total=2.5, tokens=5).tokens_per_second == 2.0
    assert math.isnan(Timing(0.5, 0.5, 1).tokens_per_second)
