"""Our streaming parser: it reads back what was rendered, loses nothing and never raises."""

import random
import time
from collections import Counter
from dataclasses import replace

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from oss_lab.errors import HarmonyError
from oss_lab.harmony import (
    Conversation,
    Delta,
    DiagnosticKind,
    End,
    Header,
    Message,
    Start,
    StreamParser,
    parse,
    render,
)
from oss_lab.harmony.round_trip import check_header_fields
from oss_lab.tokenizer import HARMONY_SPECIALS

ROLES = {"system", "developer", "user", "assistant", "tool"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
# Header fields of every sort; those that cannot be read back must be refused.
WORD = st.one_of(
    st.sampled_from(["functions.f", "python", "<|end|>", "工具", "🙂", "a:b", "json", "to=x", ""]),
    st.sampled_from([*sorted(ROLES), "all", "final", "assistantfinal", "user:x", "a b", " a", "."]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
KIND = st.sampled_from(["json", "code", "<|constrain|>", "<|constrain|> json"])


@st.composite
def messages(draw):
    role = draw(st.sampled_from(sorted(ROLES)))
    return Message.of(
        role,
        draw(TEXT),
        name=draw(WORD if role == "tool" else st.none() | WORD),
        channel=draw(st.none() | st.sampled_from(["analysis", "commentary", "final"]) | WORD),
        recipient=draw(st.none() | WORD),
        content_type=draw(st.none() | KIND | WORD | WORD.map("<|constrain|>{}".format)),
    )


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_parse_reads_back_what_render_wrote(tiny, examples):
    counts = Counter()

    @settings(max_examples=examples, deadline=None, database=None)
    @given(messages(), st.sampled_from(["library", "model"]), st.randoms())
    def any_message(message, layout, rng):
        try:
            check_header_fields(message)
        except HarmonyError:
            counts["refused"] += 1
            with pytest.raises(HarmonyError, match=r"messages\[0\]: the .* (is empty|cannot be)"):
                render(Conversation.of(message), tiny)
        else:
            counts["read back"] += 1
            check_read_back(tiny, [message], layout, rng)

    any_message()
    assert min(counts["refused"], counts["read back"]) > examples / 20


def check_read_back(tiny, conversation, layout, rng):
    result = render(
        Conversation(tuple(conversation)), tiny, mode="conversation", policy="keep", layout=layout
    )
    assert parse(result.tokens, tiny) == conversation
    parser, events, position = StreamParser(tiny, None), [], 0
    while position < len(result.tokens):  # in chunks of any size
        step = rng.randrange(1, 9)
        events += parser.feed(result.tokens[position : position + step])
        position += step
    assert parser.finish() == []
    assert parser.messages == conversation
    check_events(events, parser, result.tokens)


def check_events(events, parser, tokens):
    """Joined deltas equal the content; ranges are in order and inside the stream."""
    deltas, ended, position = None, [], 0
    for event in events:
        if isinstance(event, Start):
            deltas, position = [], event.tokens[0]
        elif isinstance(event, Delta):
            assert deltas is not None
            assert position <= event.tokens[0] <= event.tokens[1]
            position = event.tokens[1]
            deltas.append(event.text)
        elif isinstance(event, End):
            assert deltas is not None
            assert "".join(deltas) == event.message.text
            assert position <= event.tokens[1] <= len(tokens)
            ended.append(event.message)
            deltas = None
    assert deltas is None
    assert ended == parser.messages


def test_delta_ranges_reconstruct_the_content(tiny):
    message = Message.of("assistant", "the 👨‍👩‍👧 你好 thin", channel="final")
    tokens = render(Conversation.of(message), tiny, mode="conversation").tokens
    events = StreamParser(tiny, None).feed(tokens)
    deltas = [event for event in events if isinstance(event, Delta)]
    assert {delta.channel for delta in deltas} == {"final"}
    for delta in deltas:
        data = map(tiny.decode_single_token_bytes, tokens[slice(*delta.tokens)])
        assert b"".join(data).decode() == delta.text
    assert "".join(delta.text for delta in deltas) == message.text


def random_stream(seed, count, encoding):
    rng = random.Random(seed)
    specials = [encoding.encode_single_token(name) for name in HARMONY_SPECIALS]
    for _ in range(count):
        kind = rng.random()
        if kind < 0.4:
            yield rng.choice(specials)
        elif kind < 0.98:
            yield rng.randrange(encoding.n_vocab)
        else:
            yield rng.choice([-1, 2**31, 2**32, -(2**70), 10**6])


def survive(encoding, count, role):
    tokens = list(random_stream(count, count, encoding))
    parser = StreamParser(encoding, role)
    events = parser.feed(tokens)
    events += parser.finish()
    check_events(events, parser, tokens)
    assert parser.position == count
    assert all(0 <= event.position <= count for event in parser.diagnostics)
    assert len(parser.messages) > count / 100


@pytest.mark.parametrize("role", [None, "assistant"])
def test_ten_thousand_random_tokens(tiny, role):
    survive(tiny, 10_000, role)


@pytest.mark.slow
def test_a_million_random_tokens(tiny, o200k):
    survive(tiny, 500_000, None)
    survive(o200k, 500_000, "assistant")


def best_time(action):
    times = []
    for _ in range(3):
        begin = time.process_time()
        action()
        times.append(time.process_time() - begin)
    return min(times)


@pytest.mark.parametrize("where", ["content", "header"])
def test_time_is_linear_in_the_tokens(tiny, where):
    opening = "<|channel|>final<|message|>" if where == "content" else "<|channel|>final "
    opening = tiny.encode(opening, allowed_special="all")
    text = tiny.encode_ordinary("the an 你好 ")

    def one_by_one(count):
        parser = StreamParser(tiny)
        parser.feed(opening)
        for i in range(count):
            parser.feed(text[i % len(text)])
        parser.finish()

    short, long = best_time(lambda: one_by_one(3_000)), best_time(lambda: one_by_one(30_000))
    # For ten times the tokens; quadratic time would be a hundred times as long.
    assert long < 30 * short


K = DiagnosticKind
CASES = [
    # given role, stream, kinds in order, messages as (role, name, channel, recipient, type, text)
    (None, "<|channel|>final<|message|>x<|end|>", [K.MISSING_START], ["assistant|final|||x"]),
    (None, "hi there<|start|>user<|message|>x<|end|>", [K.TEXT_BETWEEN_MESSAGES], ["user||||x"]),
    (
        "assistant",
        "<|channel|>final<|message|>a<|end|><|return|>b<|end|>c",
        [K.UNEXPECTED_STOP, K.TEXT_BETWEEN_MESSAGES, K.UNEXPECTED_STOP, K.TEXT_BETWEEN_MESSAGES],
        ["assistant|final|||a"],
    ),
    (
        "assistant",
        "<|channel|>final<|message|>a<|endoftext|>",
        [K.UNEXPECTED_STOP],
        ["assistant|final|||a"],
    ),
    (
        "assistant",
        "<|start|>user<|message|>x<|end|>",
        [K.DOUBLE_START, K.INVENTED_MESSAGE],
        ["user||||x"],
    ),
    (
        "assistant",
        "<|channel|>analysis I must  refuse <|end|>",
        [K.MISSING_MESSAGE_TOKEN, K.UNFINISHED_TURN],
        ["assistant|analysis|||I must  refuse"],
    ),
    (
        None,
        "<|start|>assistant<|channel|>final to=f hi<|return|>",
        [K.MISSING_MESSAGE_TOKEN, K.WRONG_CHANNEL, K.WRONG_STOP],
        ["assistant|final|f||hi"],
    ),
    ("assistant", "<|return|>", [K.MISSING_MESSAGE_TOKEN], []),
    (
        "assistant",
        "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b<|return|>",
        [K.MISSING_END],
        ["assistant|analysis|||a", "assistant|final|||b"],
    ),
    (
        None,
        "<|start|><|channel|>final<|message|>x<|end|>",
        [K.MISSING_ROLE],
        ["assistant|final|||x"],
    ),
    ("assistant", "<|channel|><|message|>x<|end|>", [K.EMPTY_CHANNEL], ["assistant||||x"]),
    ("assistant", "<|channel|>x<|message|>y<|end|>", [K.UNKNOWN_CHANNEL], ["assistant|x|||y"]),
    (
        "assistant",
        "<|channel|>analysis<|channel|>final<|message|>y<|end|>",
        [K.DUPLICATE_CHANNEL],
        ["assistant|final|||y"],
    ),
    (
        "assistant",
        "<|channel|>commentary to= functions.f<|message|>{}<|call|>",
        [K.MALFORMED_RECIPIENT],
        ["assistant|commentary|functions.f||{}"],
    ),
    (
        "assistant",
        "<|channel|>commentary functions.f <|constrain|>json<|message|>{}<|call|>",
        [K.MALFORMED_RECIPIENT],
        ["assistant|commentary|functions.f|<|constrain|>json|{}"],
    ),
    (
        "assistant",
        "<|channel|>commentary to=functions.f to=python<|message|>{}<|call|>",
        [K.MALFORMED_RECIPIENT],
        ["assistant|commentary|functions.f||{}"],
    ),
    (
        "assistant",
        "<|channel|>final extra words<|message|>x<|end|>",
        [K.EXTRA_HEADER_WORDS],
        ["assistant|final|||x"],
    ),
    (
        "assistant",
        "assistant<|channel|>final<|message|>x<|end|>",
        [K.EXTRA_HEADER_WORDS],
        ["assistant|final|||x"],
    ),
    (
        "assistant",
        "<|reserved_278|><|channel|>final<|message|>x<|end|>",
        [K.SPECIAL_IN_HEADER],
        ["assistant|final|||x"],
    ),
    (
        "assistant",
        "<|channel|>final<|message|>x<|channel|>y<|end|>",
        [K.SPECIAL_IN_CONTENT],
        ["assistant|final|||x<|channel|>y"],
    ),
    (
        "assistant",
        "<|channel|>analysis cut sho",
        [K.UNFINISHED_HEADER],
        ["assistant|analysis|||cut sho"],
    ),
    ("assistant", "<|channel|>final<|message|>x", [K.UNFINISHED_MESSAGE], ["assistant|final|||x"]),
    ("assistant", "", [], []),
    (
        "assistant",
        "<|channel|>analysis<|message|>x<|end|>",
        [K.UNFINISHED_TURN],
        ["assistant|analysis|||x"],
    ),
    (
        "assistant",
        "<|channel|>final <|message|>x<|end|>",
        [K.MALFORMED_HEADER],
        ["assistant|final|||x"],
    ),
    (
        "assistant",
        "<|channel|>commentary  to=f<|message|>x<|call|>",
        [K.MALFORMED_HEADER],
        ["assistant|commentary|f||x"],
    ),
    (
        "assistant",
        "<|channel|>commentary <|constrain|>json to=f<|message|>x<|call|>",
        [K.MALFORMED_HEADER],
        ["assistant|commentary|f|<|constrain|>json|x"],
    ),
    (
        "assistant",
        "<|channel|>commentary to=f <|constrain|>yaml<|message|>x<|call|>",
        [K.UNKNOWN_CONTENT_TYPE],
        ["assistant|commentary|f|<|constrain|>yaml|x"],
    ),
    (
        "assistant",
        "<|channel|>commentary to=f yaml<|message|>x<|call|>",
        [K.UNKNOWN_CONTENT_TYPE],
        ["assistant|commentary|f|yaml|x"],
    ),
    (None, "<|start|>tool<|message|>x<|end|>", [K.UNKNOWN_AUTHOR], ["tool:tool||||x"]),
    (None, "<|start|>user<|message|>x<|return|>", [K.WRONG_STOP], ["user||||x"]),
    (
        None,
        "<|start|>assistant<|channel|>final<|message|>x<|return|><|start|>user<|message|>y<|end|>",
        [K.WRONG_STOP],
        ["assistant|final|||x", "user||||y"],
    ),
    # The cases of public bug reports, with their siblings:
    *[
        (
            "assistant",
            f"<|channel|>{channel} to={name}<|message|>x<|end|>{rest}",
            [K.RECIPIENT_NOT_A_TOOL],
            [f"assistant|{channel}|||x", *messages],
        )
        for name in (*sorted(ROLES), "all")
        for channel, rest, messages in (
            ("final", "", []),
            (
                "commentary",
                "<|start|>assistant<|channel|>commentary to=f<|message|>{}<|call|>",
                ["assistant|commentary|f||{}"],
            ),
        )
    ],
    *[
        (None, f"<|start|>{header}<|message|>4{stop}", [K.GLUED_HEADER], [expected])
        for header, stop, expected in (
            ("assistantfinal", "<|return|>", "assistant|final|||4"),
            ("assistant final", "<|return|>", "assistant|final|||4"),
            ("assistantanalysis", "<|end|>", "assistant|analysis|||4"),
            ("assistantcommentaryto=f", "<|call|>", "assistant|commentary|f||4"),
            ("assistant<|channel|>commentaryto=f", "<|call|>", "assistant|commentary|f||4"),
            ("assistantto=f<|channel|>commentary", "<|call|>", "assistant|commentary|f||4"),
            ("assistant<|channel|>finaljson", "<|end|>", "assistant|final||json|4"),
            ("userfinal", "<|end|>", "user|final|||4"),
        )
    ],
    ("assistant", "final<|message|>4<|return|>", [K.GLUED_HEADER], ["assistant|final|||4"]),
    ("assistant", "<|message|>4<|return|>", [K.MISSING_CHANNEL], ["assistant||||4"]),
    *[
        (
            "assistant",
            f"<|channel|>final<|message|>4<|end|><|start|>{author}<|message|>and 5?<|end|>",
            [K.INVENTED_MESSAGE],
            ["assistant|final|||4", f"{name}||||and 5?"],
        )
        for author, name in (
            ("user", "user"),
            ("system", "system"),
            ("developer", "developer"),
            ("user:al", "user:al"),
            ("functions.f", "tool:functions.f"),
        )
    ],
    *[
        (
            "assistant",
            f"<|channel|>commentary {words}<|message|>{{}}<|call|>",
            [K.MALFORMED_RECIPIENT],
            [f"assistant|commentary|{name}|{kind}|{{}}"],
        )
        for words, name, kind in (
            ("functions.a json", "functions.a", "json"),
            ("python code", "python", "code"),
            ("browser.search", "browser.search", ""),
            ("json functions.a", "functions.a", "json"),
            ("get_a <|constrain|>json", "get_a", "<|constrain|>json"),
        )
    ],
    *[
        ("assistant", f"<|channel|>{channel} {words}<|message|>x<|end|>", [kind], [expected])
        for channel, expected in (("final", "assistant|final|||x"),)
        for words, kind in (
            ("2?", K.MALFORMED_CONTENT_TYPE),
            ("<|constrain|>2?", K.MALFORMED_CONTENT_TYPE),
            ("assistant", K.MALFORMED_CONTENT_TYPE),
            ("hm", K.UNKNOWN_CONTENT_TYPE),
            ("?! ?!", K.EXTRA_HEADER_WORDS),
        )
    ],
    *[
        (
            "assistant",
            f"<|channel|>commentary {words}<|call|>",
            [K.MISSING_MESSAGE_TOKEN, *more],
            [f'assistant|commentary|functions.a|{kind}|{{"x":1}}'],
        )
        for words, kind, more in (
            ('to=functions.a json {"x":1}', "json", []),
            ('to=functions.a json{"x":1}', "json", []),
            ('to=functions.a {"x":1}', "", []),
            ('to=functions.a <|constrain|>json {"x":1}', "<|constrain|>json", []),
            ('to=functions.a <|constrain|>json{"x":1}', "<|constrain|>json", []),
            ('functions.a json {"x":1}', "json", [K.MALFORMED_RECIPIENT]),
        )
    ],
    *[
        (
            "assistant",
            f"<|channel|>{channel}<|message|>{{}}<|call|>",
            [K.MISSING_RECIPIENT],
            [f"assistant|{expected}|{{}}"],
        )
        for channel, expected in (
            ("commentary json", "commentary||json"),
            ("commentary <|constrain|>json", "commentary||<|constrain|>json"),
            ("commentary", "commentary||"),
            ("analysis code", "analysis||code"),
            ("final", "final||"),
        )
    ],
    *[
        ("assistant", cut, [K.UNFINISHED_HEADER], [])
        for cut in (
            "<|channel|>",
            "<|channel|>fin",
            "<|channel|>final",
            "<|channel|>commentary to=",
            "<|channel|>commentary to=functions.f",
            "<|channel|>commentary to=functions.f js",
            "<|channel|>commentary to=functions.f <|constrain|>",
            "<|channel|>final <|constrain|>js",
            "<|channel|>final js",
        )
    ],
    (None, "<|start|>assistant", [], []),
    (None, "<|start|>assist", [K.UNFINISHED_HEADER], []),
    # Well-formed streams that openai-harmony 0.0.8 refuses or misreads:
    (
        "assistant",
        "<|channel|>commentary to=f <|constrain|> json<|message|>{}<|call|>",
        [],
        ["assistant|commentary|f|<|constrain|> json|{}"],
    ),
    (
        "assistant",
        "<|channel|>final <|constrain|>json<|message|>{}<|return|>",
        [],
        ["assistant|final||<|constrain|>json|{}"],
    ),
    ("assistant", "<|channel|>final json<|message|>{}<|end|>", [], ["assistant|final||json|{}"]),
    (None, "<|start|>user:alice<|message|>x<|end|>", [], ["user:alice||||x"]),
    (None, "<|start|>functions.f<|message|>x<|end|>", [], ["tool:functions.f||||x"]),
]


def as_tuples(message):
    author = (
        message.role if message.author.name is None else f"{message.role}:{message.author.name}"
    )
    fields = (author, message.channel, message.recipient, message.content_type, message.text)
    return "|".join(field or "" for field in fields)


@pytest.mark.parametrize(("role", "stream", "kinds", "expected"), CASES)
def test_recovery(tiny, role, stream, kinds, expected):
    tokens = tiny.encode(stream, allowed_special="all")
    parser = StreamParser(tiny, role)
    events = parser.feed(tokens) + parser.finish()
    assert [diagnostic.kind for diagnostic in parser.diagnostics] == kinds
    assert [as_tuples(message) for message in parser.messages] == expected
    check_events(events, parser, tokens)
    strict = StreamParser(tiny, role, strict=True)
    if not kinds:
        strict.feed(tokens)
        strict.finish()
        assert strict.messages == parser.messages
        return
    with pytest.raises(HarmonyError, match=kinds[0].value):  # noqa: PT012
        strict.feed(tokens)
        strict.finish()


def test_ids_outside_the_vocabulary_and_broken_utf8(tiny):
    opening = tiny.encode("<|channel|>final<|message|>", allowed_special="all")
    stop = tiny.encode_single_token("<|end|>")
    tokens = [*opening, 0xF0, 65, 9999, -1, 0xE4, stop]
    parser = StreamParser(tiny, recipients=["f"])
    events = parser.feed(tokens)
    check_events(events, parser, tokens)
    assert parser.messages[0].text == "\ufffdA\ufffd\ufffd\ufffd"
    base = len(opening)
    assert [(d.kind, d.position) for d in parser.diagnostics] == [
        (K.INVALID_UTF8, base + 1),
        (K.UNKNOWN_TOKEN, base + 2),
        (K.UNKNOWN_TOKEN, base + 3),
        (K.INVALID_UTF8, base + 5),
    ]


@pytest.mark.parametrize(("following", "text"), [([0xBD, 0xA0], "a你"), ([65], "a\ufffdA")])
def test_text_before_a_split_character_in_the_same_token_is_kept(tiny, following, text):
    mixed = tiktoken.Encoding(
        "mixed",
        pat_str=tiny._pat_str,
        mergeable_ranks=tiny._mergeable_ranks | {b"a\xe4": 300},
        special_tokens=tiny._special_tokens,
    )
    opening = tiny.encode("<|channel|>final<|message|>", allowed_special="all")
    assert parse([*opening, 300, *following], mixed, "assistant")[0].text == text


def test_unknown_recipients_are_reported_if_the_tools_are_known(tiny):
    stream = "<|channel|>commentary to=functions.g<|message|>{}<|call|>"
    parser = StreamParser(tiny, recipients=["functions.f"])
    parser.feed(tiny.encode(stream, allowed_special="all"))
    assert [diagnostic.kind for diagnostic in parser.diagnostics] == [K.UNKNOWN_RECIPIENT]


def test_every_kind_of_diagnostic_is_tested_here():
    tested = {kind for _, _, kinds, _ in CASES for kind in kinds}
    assert tested | {K.INVALID_UTF8, K.UNKNOWN_TOKEN, K.UNKNOWN_RECIPIENT} == set(K)


def test_the_channel_is_known_before_the_header_ends(tiny):
    tokens = tiny.encode("<|channel|>analysis to=python<|message|>", allowed_special="all")
    headers = [event for event in StreamParser(tiny).feed(tokens) if isinstance(event, Header)]
    known = len(tiny.encode_ordinary("analysis"))
    channels = [header.channel for header in headers]
    assert channels == [None] * known + ["analysis"] * (len(headers) - known)
    assert "".join(header.text for header in headers) == "<|channel|>analysis to=python"


def test_strict_mode_can_continue_after_its_error(tiny):
    stream = (
        "<|channel|>final<|message|>a<|end|><|return|><|start|>assistant<|channel|>final<|message|>"
        "b<|end|>"
    )
    parser = StreamParser(tiny, strict=True)
    errors = 0
    for token in tiny.encode(stream, allowed_special="all"):
        try:
            parser.feed(token)
        except HarmonyError:
            errors += 1
    assert errors == 1
    assert [message.text for message in parser.messages] == ["a", "b"]


def test_reset_starts_a_second_completion(tiny):
    tokens = tiny.encode("<|channel|>final<|message|>x<|return|>", allowed_special="all")
    parser = StreamParser(tiny)
    first = parser.feed(tokens)
    parser.reset()
    assert parser.messages == []
    assert parser.feed(tokens) == first


def test_unknown_role_is_refused(tiny):
    with pytest.raises(HarmonyError, match="unknown role 'bob'"):
        StreamParser(tiny, "bob")  # pyright: ignore[reportArgumentType]


def test_messages_are_values():
    message = Message.of("user", "x")
    assert replace(message, channel="final") != message
    assert {message: 1}[Message.of("user", "x")] == 1
