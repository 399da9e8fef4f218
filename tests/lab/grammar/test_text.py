"""Answers under a regular expression or a Lark grammar, against masks found by brute force."""

from random import Random
from typing import Any, cast

import pytest
import regex

from oss_lab.errors import LabError
from oss_lab.grammar import Lark, Regex, build_constraint
from oss_lab.harmony import Conversation, Message, SystemContent
from oss_lab.harmony.specials import RETURN, find_special_tokens
from oss_lab.tokenizer import load_vocabulary

PROMPT = Conversation.of(Message.of("system", SystemContent()), Message.of("user", "Hello"))
HEADER = "<|channel|>final<|message|>"


def start_answer(encoding, answer):
    """The constraint of an answer before its first token."""
    constraint = build_constraint(encoding, PROMPT, answer)
    for id in encoding.encode(HEADER, allowed_special="all"):
        constraint.accept(id)
    return constraint


def draw_pattern(draw, depth=3):
    """A random regular expression over a few ASCII characters, with texts of bounded length."""
    if depth == 0 or draw.random() < 0.2:
        return draw.choice(["a", "the", "in", " t", "[a-c]", "[0-9]", "b?", "an"])
    one, other = draw_pattern(draw, depth - 1), draw_pattern(draw, depth - 1)
    return draw.choice(
        [one + other, f"({one}|{other})", f"({one}){{1,{draw.randint(2, 3)}}}", f"({one})?{other}"]
    )


def find_by_brute_force(encoding, pattern, text):
    """The ids that keep a text a prefix of the language, and whether the text may end."""
    specials, program = find_special_tokens(encoding), regex.compile(pattern)
    found = set()
    for id in range(encoding.n_vocab):
        try:
            after = text + encoding.decode_single_token_bytes(id).decode("latin-1")
        except KeyError:
            continue
        if id not in specials.names and program.fullmatch(after, partial=True):
            found.add(id)
    return found, program.fullmatch(text) is not None


@pytest.mark.parametrize("seed", range(25))
def test_the_mask_of_a_regex_is_that_of_brute_force(tiny, seed):
    """If the next bytes are forced, only their usual token is allowed; otherwise every token that
    keeps the text a prefix of the language."""
    draw, specials = Random(seed), find_special_tokens(tiny)
    pattern = draw_pattern(draw)
    constraint, text = start_answer(tiny, Regex(pattern)), ""
    for _ in range(30):
        mask = set(constraint.allowed().nonzero()[:, 0].tolist())
        expected, can_end = find_by_brute_force(tiny, pattern, text)
        assert (specials.ids[RETURN] in mask) == can_end, (pattern, text)
        mask.discard(specials.ids[RETURN])
        assert not mask & specials.names.keys()
        if mask != expected:
            first = {tiny.decode_single_token_bytes(id)[:1] for id in expected}
            assert mask < expected, (pattern, text)
            assert len(mask) == len(first) == 1, (pattern, text)
        if not mask:
            break
        id = draw.choice(sorted(mask))
        constraint.accept(id)
        text += tiny.decode_single_token_bytes(id).decode("latin-1")
    assert regex.fullmatch(pattern, text, partial=True)


def test_random_answers_match_their_regex(walk):
    encoding, draw = load_vocabulary("nano"), Random(0)
    specials = find_special_tokens(encoding)
    for _ in range(60):
        pattern = draw_pattern(draw, 4)
        ids = walk(start_answer(encoding, Regex(pattern)), draw, specials)
        assert ids[-1] == specials.ids[RETURN]
        assert regex.fullmatch(pattern, encoding.decode(ids[:-1])), pattern


def test_random_answers_match_their_regex_over_200000_tokens(o200k, walk):
    draw, specials = Random(0), find_special_tokens(o200k)
    patterns = [draw_pattern(draw, 4) for _ in range(8)]
    for pattern in [*patterns, r"\w{1,8}", r"[А-я]{1,9}, [一-龥]{2,4}!", "(?s:.{0,40})"]:
        ids = walk(start_answer(o200k, Regex(pattern)), draw, specials)
        assert ids[-1] == specials.ids[RETURN]
        assert regex.fullmatch(pattern, o200k.decode_bytes(ids[:-1]).decode())


SUMS = r"""
start: sum
sum: product (("+" | "-") product)*
product: atom ("*" atom)*
atom: NUMBER | "(" sum ")"
NUMBER: /[1-9][0-9]{0,2}/
"""


def test_random_answers_of_a_lark_grammar_are_expressions(walk):
    encoding, draw = load_vocabulary("nano"), Random(0)
    specials = find_special_tokens(encoding)
    start, ended = start_answer(encoding, Lark(SUMS)), 0
    for _ in range(40):
        ids = walk(start.copy(), draw, specials, longest=120)
        if ids[-1] == specials.ids[RETURN]:  # a deep expression may take more tokens
            ended += 1
            assert isinstance(eval(encoding.decode(ids[:-1]), {}), int)
    assert ended >= 20


def test_the_mask_of_nested_brackets_is_that_of_brute_force(tiny):
    constraint, text, draw = start_answer(tiny, Lark('start: "(" start? ")" | "x"')), "", Random(3)
    specials = find_special_tokens(tiny)
    ends = find_by_brute_force(tiny, r"(\((?1)?\)|x)", "")[0]
    assert set(constraint.allowed().nonzero()[:, 0].tolist()) == ends
    while constraint.allowed().any():
        mask = set(constraint.allowed().nonzero()[:, 0].tolist())
        open_count = text.count("(") - text.count(")")
        if ")" in text or "x" in text:
            expected = {")"} if open_count else {RETURN}
        else:
            expected = {"(", "x"} | ({")"} if text else set())
        assert {tiny.decode([id]) for id in mask} == expected
        id = draw.choice(sorted(mask))
        constraint.accept(id)
        text += "" if id == specials.ids[RETURN] else tiny.decode([id])
    assert text.count("(") == text.count(")")


def test_an_answer_may_end_only_where_it_is_complete(tiny):
    specials = find_special_tokens(tiny)
    constraint = start_answer(tiny, Regex("ab?"))
    with pytest.raises(LabError, match=r"does not allow <\|return\|> before it is complete"):
        constraint.accept(specials.ids[RETURN])
    constraint.accept(tiny.encode("a")[0])
    assert constraint.allowed()[specials.ids[RETURN]]
    constraint.accept(tiny.encode("b")[0])
    assert constraint.allowed().nonzero()[:, 0].tolist() == [specials.ids[RETURN]]
    constraint.accept(specials.ids[RETURN])
    assert not constraint.allowed().any()
    with pytest.raises(LabError, match="the reply has ended"):
        constraint.accept(specials.ids[RETURN])


@pytest.mark.parametrize("name", ["<|end|>", "<|call|>", "<|start|>", "<|endoftext|>"])
def test_no_special_token_is_allowed_inside_the_answer(tiny, name):
    constraint = start_answer(tiny, Regex(r"(?s:.*)"))
    special = find_special_tokens(tiny).ids[name]
    assert not constraint.allowed()[special]
    with pytest.raises(LabError, match="does not allow"):
        constraint.accept(special)
    for id in tiny.encode_ordinary(name):  # the same characters as text
        constraint.accept(id)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (Regex("[a"), "unclosed character class"),
        (Regex(r"(.)\1"), "backreferences are not supported"),
        (Regex(r"[^\s\S]"), "no text fits it"),
        (Regex("a" * 200_001), "the limit is 200,000"),
        (Regex(cast(Any, 5)), "Regex: expected text, got 5"),
        (Lark("start: x"), 'unknown name: "x"'),
        (Lark('other: "a"'), "no start rule found"),
        (Lark("start: <|end|>"), r"names the token <|end|>"),
        (Lark("start: <[^1]>"), "names the token <[^1]>"),
        (Lark("start: " + "(" * 3000 + '"a"' + ")" * 3000), "too deeply nested"),
        (Lark('%llguidance {"allow_invalid_utf8": true}\nstart: /a/'), "not UTF-8"),
        (Lark('start: "a" start'), "the rule 'start' requires itself"),
        (Lark('start: (a | "y")? b\nb: "x" b | c\nc: b+\na: "z"'), "the rule 'b' requires itself"),
        (Lark(cast(Any, None)), "Lark: expected text, got None"),
        ([1], "response_format: expected a pydantic model class"),
        ("yes|no", "response_format: expected a pydantic model class"),
        (int, "response_format: expected a pydantic model class"),
        ({"type": "json_object"}, "expected the JSON schema itself, got OpenAI's form"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused_in_one_sentence(tiny, answer, complaint):
    with pytest.raises(LabError) as error:
        build_constraint(tiny, PROMPT, answer)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "a" start | "b"',
        'start: "a" start?',
        'start: "a" (start)?',
        'start: "a" start{0,2}',
        'start: "a" start~0..2',
        'start: node*\nnode: "(" node* ")"',
        'start: a\n  | "x" start\n// start: start\na: "y" %json {"type": "integer"}',
        "start[capture]: A start | A\nA: /x/",
        SUMS,
    ],
)
def test_a_rule_may_refer_to_itself_if_it_can_end(tiny, grammar):
    assert start_answer(tiny, Lark(grammar)).allowed().any()


def test_an_expression_with_too_many_states_is_refused_while_it_is_used(walk):
    encoding = load_vocabulary("nano")
    start = start_answer(encoding, Regex("(a{1000}){1000}"))
    with pytest.raises(LabError, match="the Regex cannot be used: lexer error: too many"):
        walk(start, Random(0), find_special_tokens(encoding))


def test_a_string_in_a_lark_grammar_may_look_like_a_token(tiny):
    constraint = start_answer(tiny, Lark('start: "<|end|>" /<\\[a\\]>/ // <|call|>'))
    for id in tiny.encode_ordinary("<|end|><[a]>"):
        constraint.accept(id)
    assert constraint.allowed()[find_special_tokens(tiny).ids[RETURN]]
