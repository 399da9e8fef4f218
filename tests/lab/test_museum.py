"""Each exhibit of the bug museum shows in the instruments that it names, and in no other."""

import pytest
import torch

from oss_lab.course import museum
from oss_lab.course.instruments import (
    accuracy,
    compare_logits,
    compare_prompts,
    compare_replies,
    example_ids,
    first_difference,
)
from oss_lab.course.museum.exhibits import EXHIBITS, LONG, PROMPT, REPLY, SHORT
from oss_lab.errors import LabError

NUMBERS = range(1, len(EXHIBITS) + 1)


@pytest.fixture(scope="module")
def ids(nano):
    return example_ids(nano)


def test_there_are_enough_exhibits_with_sources():
    assert len(EXHIBITS) >= 12
    assert len({each.name for each in EXHIBITS}) == len(EXHIBITS)
    for each in EXHIBITS:
        assert each.source.startswith("https://github.com/")
        assert each.seen_by


@pytest.mark.parametrize("number", NUMBERS)
def test_what_shows_a_bug(nano, ids, number):
    exhibit, strange = EXHIBITS[number - 1], museum.enter(nano, number)
    options = dict(exhibit.options)
    asking = {"effort": options["effort"]} if "effort" in options else {}
    short, long = compare_logits(nano, strange, (28, 300), of=ids)
    seen = {
        PROMPT: bool(compare_prompts(nano, strange, exhibit.question, **asking)),
        REPLY: bool(compare_replies(nano, strange, exhibit.question, **options)),
        SHORT: short.largest > 0.01,
        LONG: long.largest > 0.01,
    }
    assert {name for name, is_seen in seen.items() if is_seen} == exhibit.seen_by
    found = first_difference(nano, strange, of=ids)
    assert (found.point is not None) == (LONG in exhibit.seen_by)


@pytest.mark.parametrize("number", NUMBERS)
def test_nothing_gives_the_name_away(nano, capsys, number):
    strange = museum.enter(nano, number)
    assert repr(strange).startswith(f"<Lab exhibit {number}: 4 layers")
    assert strange.parts == {}
    reply, trace = strange.chat("Hi", max_tokens=2), strange.trace([1, 2])
    assert reply.parts == trace.origin.parts == (f"exhibit {number}",)
    museum.list_exhibits()
    shown = capsys.readouterr().out
    assert f"{number:2}  {EXHIBITS[number - 1].symptom}\n" in shown
    assert EXHIBITS[number - 1].name not in shown


def test_the_lab_does_not_change(nano, ids):
    before = nano.logits(ids)
    for number in NUMBERS:
        museum.enter(nano, number)
    assert torch.equal(nano.logits(ids), before)


def test_guess_and_reveal(capsys):
    museum.guess(3, " Window")
    assert "Yes: exhibit 3 is about window." in capsys.readouterr().out
    museum.guess(3, "sinks")
    assert "No: exhibit 3 is not about sinks. Try this: compare_logits" in capsys.readouterr().out
    museum.reveal(3)
    shown = capsys.readouterr().out
    assert "Exhibit 3: window one too large" in shown
    assert "source:   https://github.com/NVIDIA-NeMo/Megatron-Bridge/pull/2656" in shown


def test_compare_reports_prompts_logits_and_place(nano):
    shown = repr(museum.compare(nano, museum.enter(nano, 3), length=40))
    assert shown.startswith("the prompts are equal\n  28 tokens: largest change of a logit 0,")
    assert "first difference: layer 0, attn.scores at token 32" in shown
    assert repr(museum.compare(nano, nano, length=40)).endswith("in a text of 40 tokens")


def test_dropped_reasoning_costs_a_long_tool_task(nano):
    strange = museum.enter(nano, 10)
    right, wrong = (accuracy(lab, "tool sum, 4 calls", 12) for lab in (nano, strange))
    assert right.share.count >= 9
    assert wrong.share.count <= 3
    assert repr(wrong).startswith("tool sum, 4 calls: ")


def test_wrong_arguments(nano, ids):
    with pytest.raises(LabError, match="there is no exhibit 99; the exhibits are 1 to "):
        museum.enter(nano, 99)
    with pytest.raises(LabError, match="expected the number of an exhibit, got 'window'"):
        museum.reveal("window")  # pyright: ignore[reportArgumentType]
    with pytest.raises(LabError, match="expected a concept such as 'window', got ''"):
        museum.guess(1, "")
    with pytest.raises(LabError, match="there is no concept 'windov'; did you mean 'window'"):
        museum.guess(1, "windov")
    with pytest.raises(LabError, match="a lab whose parts are all the library's"):
        museum.enter(museum.enter(nano, 1), 2)
    with pytest.raises(LabError, match="an exhibit takes no parts"):
        museum.enter(nano, 1).with_parts(rms_norm=lambda x, scale, eps: x)
    with pytest.raises(LabError, match="length is 9999; it must be 1 to "):
        compare_logits(nano, nano, (9999,), of=ids)
    with pytest.raises(LabError, match="there is no task 'sums'; the tasks are product"):
        accuracy(nano, "sums")
