"""Tokens as labels, replies as text, efforts as bars: what is shown, and that text is never
markup.
"""

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import tiktoken

from oss_lab import plots
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Message
from oss_lab.plots.figure import JSON_LIMIT, PLOTLY
from oss_lab.plots.style import ordinal, plural, to_array
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.token import Token
from oss_lab.record.token_labels import group_by_message, label_token_ids
from oss_lab.tokenizer import HARMONY_SPECIALS

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def hostile():
    """A byte vocabulary with one additional token: a script."""
    ranks = {bytes([i]): i for i in range(256)} | {SCRIPT.encode(): 256}
    specials = {name: 257 + i for i, name in enumerate(HARMONY_SPECIALS)}
    return tiktoken.Encoding(
        "hostile", pat_str=r"(?s).+", mergeable_ranks=ranks, special_tokens=specials
    )


def start_reply(encoding):
    return ReplyBuilder(encoding, Conversation.of(Message.of("user", "?")), (1, 2))


@pytest.fixture
def make_reply(hostile):
    """`make_reply("12+3", "15", probability=0.5)`: a reply as if a model had written it."""

    def make(analysis=None, final=None, probability=1.0, forced=False):
        said = [("analysis", analysis, "<|end|>"), ("final", final, "<|return|>")]
        text = "<|start|>assistant".join(
            f"<|channel|>{channel}<|message|>{content}{end}"
            for channel, content, end in said
            if content is not None
        )
        builder = start_reply(hostile)
        for token in hostile.encode(text, allowed_special="all"):
            builder.add(Token(token, math.log(probability), forced=forced))
        return builder.finish()[1]

    return make


def figure_json(figure):
    """The figure's JSON, as a front end gets it."""
    return figure._repr_mimebundle_()[PLOTLY]


# Tokens


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\n", "↵"),
        (" is", "␣is"),
        ("\t\r", "⇥␍"),
        ("\u200b", "U+200B"),
        ("\u202e", "U+202E"),
        ("\x00", "U+0000"),
        ("\u00a0", "U+00A0"),
        ("é漢🙂", "é漢🙂"),
        ("", ""),
        ("a" * 24, "a" * 24),
        ("a" * 20 + "b" * 20, "a" * 12 + "…" + "b" * 11),
    ],
)
def test_invisible_characters_are_made_visible(text, shown):
    assert make_visible(text) == shown


def test_tokens_know_their_message_from_ids_alone(hostile):
    text = (
        "<|start|>user<|message|>hi<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>x<|end|>"
        "<|start|>assistant<|channel|>final<|message|>y<|return|>"
    )
    found = label_token_ids(hostile, hostile.encode(text, allowed_special="all"))
    content = [(t.text, t.role, t.channel) for t in found if t.part == "content"]
    assert content == [
        ("h", "user", None),
        ("i", "user", None),
        ("x", "assistant", "analysis"),
        ("y", "assistant", "final"),
    ]
    parts = group_by_message(found)
    assert [part.name for part in parts] == ["user", "analysis", "final"]
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert parts[-1].end == len(found)


def test_tokens_outside_any_message_and_outside_the_vocabulary(hostile):
    found = label_token_ids(hostile, [300_000, 65, 0xE4])
    assert [t.text for t in found] == ["<no token 300000>", "A", "\\xe4"]
    assert {t.message for t in found} == {-1}
    assert [part.name for part in group_by_message(found)] == ["between messages"]
    assert label_token_ids(hostile, []) == ()


def test_plotly_text_is_neither_markup_nor_mathematics():
    assert plotly_text("<b>&amp; $x$") == "&lt;b&gt;&amp;amp; &#36;x&#36;"


def test_plurals():
    assert [plural(n, "token") for n in (0, 1, 2)] == ["0 tokens", "1 token", "2 tokens"]


@pytest.mark.parametrize(
    ("n", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]
)
def test_ordinals(n, word):
    assert ordinal(n) == word


def test_numbers_accepts_tensors_of_any_dtype():
    torch = pytest.importorskip("torch")
    assert to_array(torch.tensor([0.5, 1.0], dtype=torch.bfloat16)).tolist() == [0.5, 1.0]
    assert to_array([[1, 2]]).dtype == np.float64


# Transcript


TAGS = {"div", "b", "pre", "span", "u", "br", "details", "summary", "ol", "li"}


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"style", "title"}

    def handle_data(self, data):
        self.text += data


def read(html):
    tags = Tags()
    tags.feed(html)
    tags.close()
    return tags


def test_transcript_by_channel(make_reply, hostile):
    passage = plots.transcript(make_reply("12\n3", "15"), hostile)
    assert passage.sentence.startswith("4 analysis tokens, 2 final tokens; ")
    assert passage._repr_mimebundle_()["text/plain"] == passage.sentence
    tags = read(passage.html)
    assert tags.seen <= TAGS
    assert "analysis · 4 tokens" in tags.text
    assert "12↵\n3" in tags.text
    assert "underlined" in tags.text
    assert passage.html.count("<u title") == 0  # all tokens were certain


def test_transcript_names_the_least_certain_token(make_reply, hostile):
    passage = plots.transcript(make_reply(final="7", probability=0.25), hostile)
    assert passage.sentence.endswith("least certain token: “<|channel|>” (25%).")
    assert 'title="25%"' in passage.html
    assert "<li>7 · 25%<" in passage.html  # for those who cannot point at the token
    assert passage.html.count("<u title") == len(make_reply(final="7").tokens)


def test_transcript_marks_forced_tokens(make_reply, hostile):
    assert "inserted by the budget" in plots.transcript(make_reply("1", forced=True), hostile).html


def test_transcript_escapes_hostile_tokens(make_reply, hostile):
    reply = make_reply(SCRIPT, f'"><img src=x onerror=alert(1)>{SCRIPT}')
    tags = read(plots.transcript(reply, hostile).html)
    assert tags.seen <= TAGS
    assert "<img" in tags.text


def test_transcript_of_a_broken_and_of_an_empty_reply(make_reply, hostile):
    cut = plots.transcript(make_reply("12", None), hostile)
    assert "2 analysis tokens" in cut.sentence
    builder = start_reply(hostile)
    empty = plots.transcript(start_reply(hostile).finish()[1], hostile)
    assert empty.sentence == "The reply has no tokens."
    for token in hostile.encode("<|channel|>final<|message|>4", allowed_special="all"):
        builder.add(Token(token, 0.0))
    unfinished = plots.transcript(builder.finish()[1], hostile)
    assert "cut off at the token limit; 1 format error" in unfinished.sentence


# Effort


def test_effort_comparison_counts_tokens_by_channel(make_reply, hostile):
    replies = {"low": make_reply(final="26"), "high": make_reply("1+1", "21")}
    figure = plots.effort_comparison(replies, hostile, expected="21")
    bars = {bar["name"]: bar for bar in figure_json(figure)["data"]}
    assert list(bars) == ["analysis", "final", "Harmony's own tokens"]
    assert list(bars["analysis"]["x"]) == [0, 3]
    assert list(bars["final"]["x"]) == [2, 2]
    total = [len(reply.tokens) for reply in replies.values()]
    assert [sum(n) for n in zip(*(bar["x"] for bar in bars.values()), strict=True)] == total
    assert len({bar["marker"]["pattern"]["shape"] for bar in bars.values()}) == 3
    assert figure.sentence == (
        f"At low effort the model wrote {total[0]} tokens, 0 of them analysis, and answered 26"
        f" (wrong); at high effort the model wrote {total[1]} tokens, 3 of them analysis, and"
        " answered 21 (right)."
    )
    layout = figure_json(figure)["layout"]
    assert layout["xaxis"]["title"]["text"] == "tokens"
    assert layout["yaxis"]["title"]["text"] == "effort"


def test_effort_comparison_without_answers(make_reply, hostile):
    figure = plots.effort_comparison({"low": make_reply("1", None)}, hostile)
    assert figure.sentence.endswith("1 of them analysis, and gave no answer.")
    with pytest.raises(LabError, match="no replies"):
        plots.effort_comparison({}, hostile)


def test_effort_comparison_escapes_answers(make_reply, hostile):
    figure = plots.effort_comparison({"<b>": make_reply(final=SCRIPT)}, hostile)
    text = json.dumps(figure_json(figure))
    assert len(text) <= JSON_LIMIT
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text
