"""Exercises of 15_structured_output: a mask, the tokens that it applies to, and a judge."""

import json
import re
from collections.abc import Iterator

from oss_lab.course.exercise import Exercise, Sheet

END = "<|return|>"


def my_allowed(answers, written, tokens):
    """Which tokens may come next, if the answer must be one of a few texts.

    answers: the texts. written: the text of the answer so far. tokens: the vocabulary as texts; one
    of them is "<|return|>", which ends the answer.
    Returns a list of True and False, one for each token.
    """
    rests = [answer[len(written) :] for answer in answers if answer.startswith(written)]
    return [
        "" in rests if token == "<|return|>" else any(rest.startswith(token) for rest in rests)
        for token in tokens
    ]


def allow(answers, written, tokens, fits, ends):
    """A mask from two rules: fits(rest, token), and ends(rests)."""
    rests = [each[len(written) :] for each in answers if each.startswith(written)]
    return [
        ends(rests) if token == END else any(fits(rest, token) for rest in rests)
        for token in tokens
    ]


def is_complete(rests):
    return "" in rests


def first_character_only(answers, written, tokens):
    """You compare only the first character of a token. All of its characters are appended, so all
    of them must fit.
    """
    return allow(answers, written, tokens, lambda rest, t: rest[:1] == t[:1], is_complete)


def single_characters_only(answers, written, tokens):
    """You allow only tokens of one character. A model also has longer tokens, and it has learned to
    write with them.
    """
    return allow(
        answers, written, tokens, lambda rest, t: len(t) == 1 and rest.startswith(t), is_complete
    )


def whole_rest_only(answers, written, tokens):
    """You allow only a token that completes an answer. A token may also be a step on the way: what
    is written must stay the beginning of an answer.
    """
    return allow(answers, written, tokens, lambda rest, t: rest == t, is_complete)


def token_beyond_the_end(answers, written, tokens):
    """You allow tokens that begin with the rest of an answer but are longer. The characters after
    it would belong to no answer.
    """
    return allow(
        answers,
        written,
        tokens,
        lambda rest, t: rest.startswith(t) or (rest != "" and t.startswith(rest)),
        is_complete,
    )


def anywhere_in_the_rest(answers, written, tokens):
    """You allow every token that is somewhere in the rest of an answer. It comes next, so the rest
    must begin with it.
    """
    return allow(answers, written, tokens, lambda rest, t: t in rest, is_complete)


def written_ignored(answers, written, tokens):
    """You compare the token with the beginning of the answers. It comes after what is written, so
    compare it with what is left of them.
    """
    fits = my_allowed(answers, "", tokens)
    end = [each == written for each in answers]
    return [any(end) if token == END else fit for token, fit in zip(tokens, fits, strict=True)]


def other_answers_kept(answers, written, tokens):
    """You keep answers that do not begin with what is written. They cannot be reached any more,
    even if their last characters would fit.
    """
    rests = [each[len(written) :] for each in answers]
    ends = any(each == written for each in answers)
    return [
        ends if token == END else any(rest.startswith(token) for rest in rests) for token in tokens
    ]


def end_only_if_nothing_follows(answers, written, tokens):
    """You allow the end only where no other token may follow. After `no`, the answers `no` and `not
    sure` are both possible: the model may stop or continue.
    """
    return allow(
        answers,
        written,
        tokens,
        lambda rest, t: rest.startswith(t),
        lambda rests: bool(rests) and not any(rests),
    )


def end_always_allowed(answers, written, tokens):
    """You always allow the end. Then the answer may stop in the middle, and it is none of the
    texts.
    """
    return allow(answers, written, tokens, lambda rest, t: rest.startswith(t), lambda rests: True)


def end_never_allowed(answers, written, tokens):
    """You never allow the end. Then the model cannot stop when its answer is complete: no token is
    left.
    """
    return allow(answers, written, tokens, lambda rest, t: rest.startswith(t), lambda rests: False)


TOKENS = (
    "n",
    "nx",
    "o",
    "ot",
    "not",
    " ",
    " s",
    "s",
    "su",
    "re",
    "ure",
    "e",
    "y",
    "yes",
    "1",
    "15",
    END,
)


def allowed_cases() -> Iterator[tuple]:
    words = ("yes", "no", "not sure")
    for written in ("", "n", "no", "not", "not s", "not su", "yes"):
        yield list(words), written, list(TOKENS)
    for written in ("", "1", "15", "151"):
        yield ["1", "151", "1510"], written, ["5", *TOKENS, "0", "10", "51"]
    yield ["no", "ao", "nose"], "n", list(TOKENS)
    yield ["see"], "x", list(TOKENS)


def my_masked_places(tokens):
    """Where a reply is limited by the form of its answer.

    tokens: texts. The first follows `<|start|>assistant`. A header is `<|channel|>`, the channel's
    name and `<|message|>`; then comes the text, up to `<|end|>` or the stop token `<|return|>`.
    The next message begins with `<|start|>`, `assistant`. The reply may be cut anywhere.
    Returns a list of True and False: for each token, whether the mask of the answer applies when
    this token is chosen. The token that ends the answer is chosen with the mask, too.
    """
    places, channel, is_content = [], "", False
    for n, token in enumerate(tokens):
        places.append(is_content and channel == "final")
        if token == "<|message|>":
            channel, is_content = tokens[n - 1], True
        elif token in ("<|end|>", "<|return|>"):
            is_content = False
    return places


def find_places(tokens, is_limited, *, early=False):
    """The content of the channels for which is_limited is true; `early` includes `<|message|>`."""
    places, channel, is_content = [], "", False
    for n, token in enumerate(tokens):
        if token == "<|message|>":
            channel = tokens[n - 1]
            places.append(early and is_limited(channel))
            is_content = True
        else:
            places.append(is_content and is_limited(channel))
        if token in ("<|end|>", END):
            is_content = False
    return places


def analysis_limited_too(tokens):
    """You limit the analysis, too. Then the model cannot think in free text, and must guess its
    answer.
    """
    return find_places(tokens, lambda channel: channel in ("analysis", "final"))


def every_message_limited(tokens):
    """You limit the text of every message. What is said on `commentary` is not the answer either:
    only `final` is.
    """
    return find_places(tokens, lambda channel: True)


def end_left_free(tokens):
    """You do not apply the mask where the end is chosen. Then the model may stop in the middle of
    its answer.
    """
    places = my_masked_places(tokens)
    return [
        place and token not in ("<|end|>", END) for place, token in zip(places, tokens, strict=True)
    ]


def begins_one_token_early(tokens):
    """You begin at `<|message|>`. That token belongs to the header: no form of an answer allows it,
    so the answer could never begin.
    """
    return find_places(tokens, lambda channel: channel == "final", early=True)


def begins_one_token_late(tokens):
    """You leave the first token of the answer free. Then the answer may begin with anything."""
    places = my_masked_places(tokens)
    return [place and before for place, before in zip(places, [False, *places], strict=False)]


def whole_reply_limited(tokens):
    """You limit the whole reply. Then it cannot even have a header, since the form is that of the
    answer's text.
    """
    return [True] * len(tokens)


def word_final_searched(tokens):
    """You begin after the first token `final`. Thinking may contain this word: only a header names
    a channel.
    """
    first = tokens.index("final") if "final" in tokens else len(tokens)
    ends = [n for n, each in enumerate(tokens) if each in ("<|end|>", END) and n > first]
    last = ends[0] if ends else len(tokens)
    is_free = ("<|message|>", "<|channel|>", "<|start|>")
    return [first < n <= last and each not in is_free for n, each in enumerate(tokens)]


def places_cases() -> Iterator[tuple]:
    thinking = ["<|channel|>", "analysis", "<|message|>", "7", "*", "2", "<|end|>"]
    start = ["<|start|>", "assistant"]
    answer = ["<|channel|>", "final", "<|message|>", '{"', "value", '":', "14", "}", END]
    said = ["<|channel|>", "commentary", "<|message|>", "I ", "add", "<|end|>"]
    named = [*thinking[:3], "a ", "final", " check", "<|end|>"]
    yield ([*thinking, *start, *answer],)
    yield ([*answer],)
    yield ([*thinking, *start, *said, *start, *answer],)
    yield ([*named, *start, *answer],)
    yield ([*thinking, *start, *answer[:6]],)
    yield ([*thinking, *start, *answer[:2]],)
    yield ([*thinking[:5]],)
    yield ([*answer[:3], END],)
    yield ([*answer, *start, *thinking],)
    yield ([],)


def my_grade(stop, answer, expected):
    """What one reply is worth: "cut", "invalid", "wrong" or "right".

    stop: "return" if the model ended its reply; "length" if the reply reached its limit of tokens.
    answer: a text. It should be a JSON object with the key "value" and no other, whose value is a
    whole number. expected: the right value.
    """
    if stop != "return":
        return "cut"
    try:
        found = json.loads(answer)
    except ValueError:
        return "invalid"
    if not isinstance(found, dict) or list(found) != ["value"] or type(found["value"]) is not int:
        return "invalid"
    return "right" if found["value"] == expected else "wrong"


def cut_not_noticed(stop, answer, expected):
    """You do not look at `stop`. A cut reply was not finished: what it would have become is
    unknown, so it is neither invalid nor wrong.
    """
    return my_grade("return", answer, expected)


def cut_only_if_it_does_not_parse(stop, answer, expected):
    """You call a reply cut only if it does not parse. A cut reply may parse by chance: look at
    `stop` first.
    """
    verdict = my_grade("return", answer, expected)
    return "cut" if verdict == "invalid" and stop != "return" else verdict


def valid_means_right(stop, answer, expected):
    """You call every valid answer right. The form says nothing about the number."""
    verdict = my_grade(stop, answer, expected)
    return "right" if verdict == "wrong" else verdict


def wrong_called_invalid(stop, answer, expected):
    """You call a wrong number invalid. The form was kept: distinguish the two, since they have
    different remedies.
    """
    verdict = my_grade(stop, answer, expected)
    return "invalid" if verdict == "wrong" else verdict


def number_searched_in_the_text(stop, answer, expected):
    """You search for a number in the text. A text with the right number need not be JSON, so parse
    it.
    """
    if stop != "return":
        return "cut"
    numbers = re.findall(r"-?\d+", answer)
    return "invalid" if not numbers else "right" if int(numbers[0]) == expected else "wrong"


def compared_as_text(stop, answer, expected):
    """You compare texts. The same JSON can be written with other spaces: parse it, then compare the
    numbers.
    """
    verdict = my_grade(stop, answer, expected)
    is_equal = answer == json.dumps({"value": expected})
    return verdict if verdict != "right" or is_equal else "wrong"


def other_keys_accepted(stop, answer, expected):
    """You accept objects that have other keys, too. The form allows only `value`."""
    if stop != "return" or my_grade(stop, answer, expected) != "invalid":
        return my_grade(stop, answer, expected)
    try:
        found = json.loads(answer)
    except ValueError:
        return "invalid"
    value = found.get("value") if isinstance(found, dict) else None
    return my_grade(stop, json.dumps({"value": value}), expected)


def text_taken_as_number(stop, answer, expected):
    """You accept a number in quotation marks. In JSON that is a text."""
    unquoted = re.sub(r'"(-?\d+)"', r"\1", answer)
    return my_grade(stop, unquoted, expected)


def truth_taken_as_number(stop, answer, expected):
    """You accept `true` as the number 1. In Python True is an int, and in JSON it is not a number:
    compare the type itself.
    """
    return my_grade(stop, answer.replace("true", "1").replace("false", "0"), expected)


def verdict_cases() -> Iterator[tuple[str, str, int]]:
    yield "return", '{"value": 14}', 14
    yield "return", '{\n  "value":14 }', 14
    yield "return", '{"value": 15}', 14
    yield "return", "14", 14
    yield "return", "The value is 14.", 14
    yield "return", '{"value": 14', 14
    yield "return", '{"value": "14"}', 14
    yield "return", '{"value": 14, "unit": 1}', 14
    yield "return", '{"value": true}', 1
    yield "return", '{"result": 14}', 14
    yield "return", "[14]", 14
    yield "return", '{"value": 14} is the product.', 14
    yield "return", "", 14
    yield "length", '{"value": 1', 14
    yield "length", '{"value": 14}', 14
    yield "length", '{"value": 13}', 14
    yield "length", "", 14


SHEET = Sheet(
    lesson="15_structured_output",
    title="Exercises: structured output",
    text="Read [15_structured_output](../15_structured_output.ipynb) first.",
    exercises=(
        Exercise(
            title="The mask of a list of answers",
            text=(
                "Say for each token of a vocabulary whether it may come next. What is written must"
                " stay the beginning of an answer, and the reply may end only where an answer is"
                " complete."
            ),
            solution=my_allowed,
            cases=allowed_cases,
            misconceptions=(
                first_character_only,
                single_characters_only,
                whole_rest_only,
                token_beyond_the_end,
                anywhere_in_the_rest,
                written_ignored,
                other_answers_kept,
                end_only_if_nothing_follows,
                end_always_allowed,
                end_never_allowed,
            ),
            hints=(
                "First keep the answers that begin with what is written. What is left of each?",
                "`rests` is a list of texts. Each token is compared with each of them:"
                " `rest.startswith(token)`.",
                "rests = [answer[len(written):] of those that fit]; a token is allowed if any rest"
                ' starts with it; "<|return|>" is allowed if one of the rests is "".',
            ),
            minutes=10,
            difficulty=2,
        ),
        Exercise(
            title="Where the mask applies",
            text=(
                "The form is that of the answer, and a reply has more than an answer. Say for each"
                " token of a reply whether the mask applies when it is chosen."
            ),
            solution=my_masked_places,
            cases=places_cases,
            misconceptions=(
                analysis_limited_too,
                every_message_limited,
                end_left_free,
                begins_one_token_early,
                begins_one_token_late,
                whole_reply_limited,
                word_final_searched,
            ),
            hints=(
                "Go through the tokens, and remember two things: the channel, and whether you are"
                " in the text of a message or outside.",
                "Append one True or False per token, before you read what the token changes.",
                "True if you are in the text of `final`. Then: `<|message|>` begins a text, whose"
                " channel is the token before it; `<|end|>` and `<|return|>` end it.",
            ),
            minutes=8,
            difficulty=2,
        ),
        Exercise(
            title="A judge of answers",
            text=(
                "Count on nothing: a reply may be cut, may not have the form, or may have the form"
                " and a wrong number. Say which."
            ),
            solution=my_grade,
            cases=verdict_cases,
            imports="import json",
            misconceptions=(
                cut_not_noticed,
                cut_only_if_it_does_not_parse,
                valid_means_right,
                wrong_called_invalid,
                number_searched_in_the_text,
                compared_as_text,
                other_keys_accepted,
                text_taken_as_number,
                truth_taken_as_number,
            ),
            hints=(
                "Which of the four verdicts needs no look at the answer at all?",
                "`json.loads(answer)` raises ValueError for a text that is not JSON. It returns a"
                " dict for an object, and an int for a whole number.",
                "cut, unless stop is return; invalid, if it does not parse, is not a dict, has"
                ' other keys than ["value"], or type(value) is not int; then compare.',
            ),
            minutes=10,
            difficulty=1,
        ),
    ),
)
