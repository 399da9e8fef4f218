"""Generated streams: what leaves the format is reported, and what stays inside it is not.

A generator draws well-formed streams: all kinds of messages, whole conversations and replies. Each
function under OUTSIDE changes one into a stream that deviates from what the system message demands;
the parser must report it. Each function under INSIDE changes one into another well-formed stream;
the parser must report nothing and read the changed messages. No example is left out: a stream to
which a change does not apply is drawn again. GRAMMAR_EXAMPLES=100000 is the full size per class.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import pytest
import tiktoken

from oss_lab.harmony import Conversation, Message, StreamParser, render

FUNCTIONS, BUILTIN = ("functions.f", "functions.get_weather"), ("python", "browser.search")
TOOLS = FUNCTIONS + BUILTIN
SLOW = int(os.environ.get("GRAMMAR_EXAMPLES", "20000"))


class Special(str):
    """A special token; a plain str is text, even if it looks like one."""


START, CHANNEL, CONSTRAIN, MESSAGE = map(
    Special, ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>")
)
END, RETURN, CALL = STOPS = tuple(map(Special, ("<|end|>", "<|return|>", "<|call|>")))
RESERVED, END_OF_TEXT = Special("<|reserved_278|>"), Special("<|endoftext|>")


@dataclass
class Part:
    """One message, with its fields as they are spelled."""

    author: str
    channel: str | None = None
    recipient: str | None = None
    kind: str | None = None  # content type
    text: str = ""
    stop: str = END
    recipient_first: bool = False
    space: str = " "  # before the content type

    @property
    def is_own(self):
        return self.author == "assistant"

    @property
    def is_call(self):
        return self.is_own and self.recipient is not None

    def message(self):
        role, _, name = self.author.partition(":")
        if role not in ("system", "developer", "user", "assistant"):
            role, name = "tool", self.author
        fields = {"channel": self.channel, "recipient": self.recipient, "content_type": self.kind}
        return Message.of(role, self.text, name=name or None, **fields)

    def spell(self):
        recipient = f" to={self.recipient}" if self.recipient is not None else ""
        items = [START, self.author + recipient * self.recipient_first]
        if self.channel is not None:
            items += [CHANNEL, self.channel]
        items[-1] += recipient * (not self.recipient_first)
        if self.kind is not None and self.kind.startswith(CONSTRAIN):
            items[-1] += self.space
            items += [CONSTRAIN, self.kind.removeprefix(CONSTRAIN)]
        elif self.kind is not None:
            items[-1] += f"{self.space}{self.kind}"
        return [*items, MESSAGE, self.text, self.stop]


@dataclass
class Stream:
    """Messages; `role` is None for a conversation, and "assistant" for what the model writes."""

    parts: list[Part]
    role: str | None
    ending: list = field(default_factory=list)

    def spell(self):
        items = [item for part in self.parts for item in part.spell()] + self.ending
        if self.role is not None:
            items = [items[1].removeprefix(self.role), *items[2:]]
        return items

    def own_start(self):
        """Parts whose author is spelled."""
        return self.parts if self.role is None else self.parts[1:]


# The generator

WORDS = (
    "a",
    " the",
    "x1",
    "\n",
    "<|end|>",
    "to=functions.f",
    "json",
    "你好",
    "🙂",
    '{"x": 1}',
    " ",
)


def draw_text(rng):
    return "".join(rng.choices(WORDS, k=rng.randrange(4)))


def draw_own(rng, channel, stop=END):
    return Part("assistant", channel, text=draw_text(rng), stop=stop)


def draw_call(rng, name=None):
    name = name or rng.choice(TOOLS)
    channel = "commentary" if name in FUNCTIONS else rng.choice(("commentary", "analysis"))
    kind = rng.choice((None, "json", "code", "<|constrain|>json", "<|constrain|> json"))
    first = rng.random() < 0.3
    return Part("assistant", channel, name, kind, draw_text(rng), CALL, first)


def draw_output(rng, call):
    bare = rng.random() < 0.2
    to, channel = (None, None) if bare else ("assistant", call.channel)
    return Part(call.recipient, channel, to, None, draw_text(rng), recipient_first=True)


def draw_thoughts(rng):
    parts = [draw_own(rng, "analysis") for _ in range(rng.randrange(3))]
    return parts + [draw_own(rng, "commentary")] * (rng.random() < 0.3)


def draw_reply(rng):
    last = draw_call(rng) if rng.random() < 0.5 else draw_own(rng, "final", RETURN)
    return Stream([*draw_thoughts(rng), last], "assistant")


def draw_conversation(rng):
    parts = [Part("system", text="s")] + [Part("developer", text="d")] * (rng.random() < 0.5)
    for _ in range(rng.randrange(1, 3)):
        parts.append(Part("user", text=draw_text(rng)))
        for _ in range(rng.randrange(2)):
            parts += [*draw_thoughts(rng), call := draw_call(rng), draw_output(rng, call)]
        parts += [*draw_thoughts(rng), draw_own(rng, "final")]
    parts[-1].stop = rng.choice((END, RETURN))
    return Stream(parts, None)


def draw(rng):
    return draw_reply(rng) if rng.random() < 0.5 else draw_conversation(rng)


def pick(rng, found):
    """One of them; LookupError if there is none, so that another stream is drawn."""
    if not (found := list(found)):
        raise LookupError
    return rng.choice(found)


# Changes that leave the format

OUTSIDE: dict[str, Callable] = {}
INSIDE: dict[str, Callable] = {}


def outside(change):
    OUTSIDE[change.__name__] = change
    return change


def inside(change):
    INSIDE[change.__name__] = change
    return change


def change_tokens(name, tokens, put):
    """A change that replaces one of these special tokens by `put(token)`."""

    def change(rng, stream):
        items = stream.spell()
        n = pick(
            rng, (n for n, item in enumerate(items) if isinstance(item, Special) and item in tokens)
        )
        return [*items[:n], *put(items[n]), *items[n + 1 :]]

    OUTSIDE[name] = change


TOKENS = {"start": [START], "channel": [CHANNEL], "message": [MESSAGE], "constrain": [CONSTRAIN]}
for _name, _tokens in (TOKENS | {"stop": STOPS}).items():
    if _name != "constrain":  # a content type without <|constrain|> is well-formed
        change_tokens(f"drop_{_name}", _tokens, lambda token: [])
    change_tokens(f"double_{_name}", _tokens, lambda token: [token, token])
    change_tokens(f"reserve_{_name}", _tokens, lambda token: [RESERVED])
change_tokens("channel_to_constrain", [CHANNEL], lambda token: [CONSTRAIN])
change_tokens("constrain_to_channel", [CONSTRAIN], lambda token: [CHANNEL])
change_tokens("message_to_channel", [MESSAGE], lambda token: [CHANNEL])
change_tokens("message_to_start", [MESSAGE], lambda token: [START])
change_tokens("start_to_stop", [START], lambda token: [END])
change_tokens("start_to_message", [START], lambda token: [MESSAGE])
change_tokens("stop_to_end_of_text", STOPS, lambda token: [END_OF_TEXT])
change_tokens("text_after_stop", STOPS, lambda token: [token, "so"])
change_tokens("special_in_content", [MESSAGE], lambda token: [token, CHANNEL])
change_tokens("unknown_id", [MESSAGE, CHANNEL], lambda token: [token, 9999])
change_tokens("broken_utf8", [MESSAGE, CHANNEL], lambda token: [token, 0xFF])


def change_part(name, where, change):
    """A change of one message among those for which `where` is true."""

    def apply(rng, stream):
        change(rng, pick(rng, filter(where, stream.parts)))

    OUTSIDE[name] = apply


def setting(**choices):
    """A change that sets these fields to one of their values."""

    def change(rng, part):
        for name, values in choices.items():
            setattr(part, name, rng.choice(values))

    return change


def is_own(part):
    return part.is_own


def is_call(part):
    return part.is_call


def is_said(part):
    return part.is_own and not part.is_call


change_part("junk_channel", is_own, setting(channel=["finale", "analysi", "2?", "<|end|>", "to"]))
change_part("empty_channel", is_own, setting(channel=["", " "]))
change_part("missing_channel", is_own, setting(channel=[None]))
change_part("call_on_final", is_call, setting(channel=["final"]))
change_part(
    "function_on_analysis", lambda part: part.recipient in FUNCTIONS, setting(channel=["analysis"])
)
change_part("missing_recipient", is_call, setting(recipient=[None]))
change_part("empty_recipient", is_call, setting(recipient=["", " "]))
change_part("space_in_recipient", is_call, setting(recipient=[" functions.f", " python"]))
change_part(
    "two_recipients", is_call, setting(recipient=["python to=functions.f", "python to=python"])
)
change_part(
    "undeclared_recipient",
    is_call,
    setting(recipient=["functions.g", "functions.", "f", "functions.functions.f", "Python"]),
)
change_part(
    "role_as_recipient", is_own, setting(recipient=["assistant", "user", "system", "all", "tool"])
)
change_part(
    "junk_content_type", is_own, setting(kind=["2?", "<|constrain|>2?", "assistant", "to", "final"])
)
change_part("unknown_content_type", is_own, setting(kind=["yaml", "<|constrain|>yaml", "jsonx"]))
change_part(
    "content_type_without_call",
    lambda part: is_said(part) and part.channel != "final",
    setting(kind=["json", "code", "<|constrain|>json"]),
)
change_part("extra_words", is_own, setting(kind=["json code", "so it is", "<|constrain|>json x"]))
change_part("trailing_space", is_own, setting(kind=["json ", "<|constrain|>json ", "code\n"]))
change_part("call_ends_wrong", is_call, setting(stop=[END, RETURN]))
change_part("answer_ends_wrong", lambda part: is_said(part), setting(stop=[CALL]))
change_part(
    "thought_ends_wrong",
    lambda part: is_said(part) and part.channel != "final",
    setting(stop=[RETURN]),
)
change_part("other_ends_wrong", lambda part: not part.is_own, setting(stop=[RETURN, CALL]))


@outside
def bare_recipient(rng, stream):
    part = pick(rng, filter(is_call, stream.parts))
    part.recipient, part.channel = None, f"{part.channel} {part.recipient}"


@outside
def double_space(rng, stream):
    part = pick(rng, (p for p in stream.parts if p.recipient or p.kind))
    if part.recipient:
        space = rng.choice(("  ", "\u00a0", " \n"))
        part.channel, part.recipient = f"{part.channel}{space}to={part.recipient}", None
    else:
        part.space = "  "


@outside
def glued_channel(rng, stream):
    part = pick(rng, filter(is_own, stream.own_start()))
    space = rng.choice(("", " "))
    part.author, part.channel = f"assistant{space}{part.channel}", None


@outside
def glued_recipient(rng, stream):
    part = pick(rng, filter(is_call, stream.parts))
    part.channel, part.recipient = f"{part.channel}to={part.recipient}", None


@outside
def swapped_fields(rng, stream):
    part = pick(rng, filter(is_call, stream.parts))
    part.channel, part.recipient = f"{part.channel} json to={part.recipient}", None
    part.kind = None


@outside
def two_channels(rng, stream):
    items = stream.spell()
    n = pick(rng, (n for n, item in enumerate(items) if item is CHANNEL))
    return [*items[:n], CHANNEL, rng.choice(("final", "analysis", "x")), *items[n:]]


@outside
def second_author(rng, stream):
    part = pick(rng, filter(is_own, stream.own_start()))
    part.author = rng.choice(("assistant assistant", "assistantassistant", "assistant user"))


@outside
def missing_author(rng, stream):
    pick(rng, stream.own_start()).author = ""


@outside
def undeclared_author(rng, stream):
    pick(rng, stream.own_start()).author = rng.choice(("bob", "functions.g", "assistants", "tool"))


@outside
def invented_author(rng, stream):
    if stream.role is None:
        raise LookupError
    pick(rng, stream.own_start()).author = rng.choice(("user", "system", "developer", *TOOLS))


@outside
def message_after_return(rng, stream):
    pick(rng, (p for p in stream.parts[:-1] if p.channel == "final")).stop = RETURN


@outside
def cut_between_messages(rng, stream):
    if stream.role is None or len(stream.parts) == 1:
        raise LookupError
    del stream.parts[rng.randrange(1, len(stream.parts)) :]


def cut_inside(rng, stream, is_content):
    if stream.role is None:
        raise LookupError
    items = stream.spell()
    last = [n for n, item in enumerate(items) if item is MESSAGE]
    place = pick(
        rng,
        (
            n
            for n in range(2, len(items))
            if (n - 1 in last or n - 2 in last) is is_content and items[n - 1] not in STOPS
        ),
    )
    return items[:place]


@outside
def cut_inside_content(rng, stream):
    return cut_inside(rng, stream, True)


@outside
def cut_inside_header(rng, stream):
    return cut_inside(rng, stream, False)


# Changes that stay inside the format


@inside
def nothing(rng, stream):
    pass


@inside
def other_text(rng, stream):
    pick(rng, stream.parts).text = "".join(rng.choices((*WORDS, "final", "assistant", "é"), k=5))


@inside
def other_tool(rng, stream):
    n = pick(rng, (n for n, part in enumerate(stream.parts) if part.is_call))
    stream.parts[n] = draw_call(rng)
    if n + 1 < len(stream.parts):
        stream.parts[n + 1] = draw_output(rng, stream.parts[n])


@inside
def other_content_type(rng, stream):
    part = pick(rng, (p for p in stream.parts if p.is_call or p.channel == "final"))
    part.kind = rng.choice((None, "json", "code", "text", "<|constrain|>json", "<|constrain|>"))


@inside
def other_recipient_position(rng, stream):
    part = pick(rng, filter(is_call, stream.parts))
    part.recipient_first = not part.recipient_first


@inside
def other_channel_of_a_builtin_tool(rng, stream):
    part = pick(rng, (p for p in stream.parts if p.recipient in BUILTIN))
    part.channel = "analysis" if part.channel == "commentary" else "commentary"


@inside
def no_space_before_constrain(rng, stream):
    pick(rng, (p for p in stream.parts if (p.kind or "").startswith(CONSTRAIN))).space = ""


@inside
def added_thoughts(rng, stream):
    n = pick(rng, (n for n, part in enumerate(stream.parts) if part.is_own))
    stream.parts[n:n] = [draw_own(rng, rng.choice(("analysis", "commentary")))]


@inside
def named_user(rng, stream):
    pick(rng, (p for p in stream.parts if p.author == "user")).author = "user:alice"


@inside
def added_turn(rng, stream):
    if stream.role is not None:
        raise LookupError
    stream.parts[-1].stop = END
    stream.parts += draw_conversation(rng).parts


@inside
def generation_prompt(rng, stream):
    if stream.role is not None:
        raise LookupError
    stream.parts[-1].stop, stream.ending = END, [START, rng.choice(("assistant", "user"))]


@inside
def answer_in_history(rng, stream):
    pick(rng, (p for p in stream.parts if p.channel == "final")).stop = END


@inside
def split_tokens(rng, stream):
    return [
        each
        for item in stream.spell()
        for each in ([item] if isinstance(item, Special) else item.encode())
    ]


# The tests


@pytest.fixture(scope="module")
def words(tiny):
    """The vocabulary `tiny` with whole words, so that streams have fewer tokens."""
    text = "assistant system developer user functions get weather python browser search commentary"
    text += " analysis final json code constrain message channel start end alice"
    names = [word.encode() for each in text.split() for word in (each, f" {each}")]
    return tiktoken.Encoding(
        "words",
        pat_str=tiny._pat_str,
        mergeable_ranks=tiny._mergeable_ranks | {name: 300 + n for n, name in enumerate(names)},
        special_tokens=tiny._special_tokens,
    )


@pytest.fixture(scope="module")
def read(words):
    """`read(items, role)`: the messages and diagnostics of a stream."""

    @cache
    def encode(text, is_special):
        return [words.encode_single_token(text)] if is_special else words.encode_ordinary(text)

    def run(items, role):
        parser = StreamParser(words, role, recipients=TOOLS)
        for item in items:
            parser.feed(item if isinstance(item, int) else encode(item, isinstance(item, Special)))
        parser.finish()
        return parser.messages, parser.diagnostics

    return run


def apply(change, rng):
    """A stream to which the change applies, changed, and its spelling."""
    while True:
        stream = draw(rng)
        try:
            items = change(rng, stream)
        except LookupError:
            continue
        return stream, stream.spell() if items is None else items


def sizes(kinds):
    return [300, pytest.param(-(-SLOW // len(kinds)), marks=pytest.mark.slow)]


@pytest.mark.parametrize("examples", sizes(OUTSIDE))
def test_what_leaves_the_format_is_reported(read, examples):
    begin, counts = time.perf_counter(), Counter()
    for name, change in OUTSIDE.items():
        rng = random.Random(name)
        for _ in range(examples):
            stream, items = apply(change, rng)
            assert read(items, stream.role)[1], (name, items)
            counts[name] += 1
    report("outside", counts, begin)
    assert counts == dict.fromkeys(OUTSIDE, examples)
    assert len(OUTSIDE) == 59


@pytest.mark.parametrize("examples", sizes(INSIDE))
def test_what_stays_inside_the_format_is_read_and_not_reported(read, examples):
    begin, counts = time.perf_counter(), Counter()
    for name, change in INSIDE.items():
        rng = random.Random(name)
        for _ in range(examples):
            stream, items = apply(change, rng)
            messages, diagnostics = read(items, stream.role)
            assert diagnostics == [], (name, items)
            assert messages == [part.message() for part in stream.parts], (name, items)
            counts[name] += 1
    report("inside", counts, begin)
    assert counts == dict.fromkeys(INSIDE, examples)
    assert len(INSIDE) == 13


@pytest.mark.parametrize("examples", [300, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_generated_conversations_are_rendered_and_read_back(words, examples):
    begin, rng = time.perf_counter(), random.Random(0)
    for _ in range(examples):
        conversation = [part.message() for part in draw_conversation(rng).parts]
        layout = rng.choice(("library", "model"))
        tokens = render(
            Conversation(tuple(conversation)),
            words,
            mode="completion",
            policy="keep",
            layout=layout,
        ).tokens
        parser = StreamParser(words, None, recipients=TOOLS)
        parser.feed(tokens)
        parser.finish()
        assert parser.messages == conversation
        assert parser.diagnostics == []
    report("conversations", Counter(rendered=examples), begin)


def report(name, counts, begin):
    seconds = time.perf_counter() - begin
    print(f"{name}: {counts.total():,} examples in {seconds:.1f} s: {dict(counts)}")
