"""Lesson 19: rules and their judge, held-out conflicts, prompts that differ in one thing."""

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from oss_lab.analysis.statistics.shares import Share
from oss_lab.course.labs.hierarchy.attacks import (
    DISGUISES,
    LAYOUTS,
    Layout,
    weigh_carriers,
    write_injection,
    write_layout,
)
from oss_lab.course.labs.hierarchy.data import (
    AUTHORITY,
    HELD_OUT,
    KINDS,
    PAIRS,
    PLACES,
    VALUES,
    WEIGHTS,
    Case,
    Rule,
    draw_case,
    draw_rules,
    draw_training,
    kinds_of,
    shuffle_roles,
)
from oss_lab.course.labs.hierarchy.known import AGAINST_5, draw_look_up, draw_tool_sum
from oss_lab.course.labs.hierarchy.measure import add_counts, name_pair
from oss_lab.course.labs.hierarchy.models import make_example
from oss_lab.course.labs.hierarchy.prompts import write_prompt
from oss_lab.course.labs.hierarchy.tables import main_share, obey_matrix
from oss_lab.course.labs.results import load_result
from oss_lab.course.sheets.s19_hierarchy import my_swap_roles, my_winning_rule
from oss_lab.harmony import render
from oss_lab.tokenizer import load_vocabulary

ALL_RULES = [Rule(kind, value) for kind in KINDS for value in VALUES[kind]]


@pytest.fixture(scope="module")
def encoding():
    return load_vocabulary("nano")


@pytest.fixture(scope="module")
def conflict() -> Case:
    rules = draw_rules(Random(0), "begin", ("developer", "user"))
    return draw_case(Random(0), rules, tool=0.0)


# Rules


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.text)
def test_a_rule_is_followed_by_its_own_answer_and_by_no_other(rule: Rule) -> None:
    for number in ("10", "55", "47"):
        assert rule.is_followed(rule.apply(number))
        assert not rule.is_followed(number)
        others = [other for other in ALL_RULES if other != rule]
        assert not any(rule.is_followed(other.apply(number)) for other in others)


def test_a_wrong_number_can_follow_a_rule_and_an_empty_reply_cannot() -> None:
    assert Rule("begin", "=").is_followed("=99")
    assert Rule("copies", "2").is_followed("99 99")
    assert not Rule("copies", "2").is_followed("99 98")
    assert not any(rule.is_followed("") for rule in [*ALL_RULES, AGAINST_5])


def test_the_known_rule_spells_only_numbers_with_the_digit() -> None:
    assert AGAINST_5.apply("57") == "five seven"
    assert AGAINST_5.apply("47") == "47"
    assert AGAINST_5.is_followed("five seven")
    assert not AGAINST_5.is_followed("57")


# Data


def test_the_highest_role_with_authority_wins() -> None:
    for pair in PAIRS:
        case = draw_case(Random(1), draw_rules(Random(1), "end", pair))
        expected = case.rules[pair[0]] if pair[0] in AUTHORITY else None
        assert case.winner == expected
        listed = [(role, case.rules.get(role)) for role in PLACES]
        assert my_winning_rule(listed) == expected
        assert case.answer == (expected.apply(case.number) if expected else case.number)


def test_held_out_conflicts_are_never_trained_and_all_others_are() -> None:
    seen = Counter()
    for case in draw_training(3, 4000):
        if len(case.rules) == 2:
            first, second = case.rules.values()
            assert first.kind == second.kind
            assert first.value != second.value
            seen[tuple(case.rules), first.kind] += 1
    assert set(seen) == {(pair, kind) for pair in PAIRS for kind in kinds_of(pair, "seen")}
    assert all(kinds_of(pair, "held_out") == [HELD_OUT[pair]] for pair in PAIRS)
    for (pair, _), count in seen.items():
        expected = 2000 * WEIGHTS[PAIRS.index(pair)] / sum(WEIGHTS) / 2  # two kinds of a pair
        assert count == pytest.approx(expected, rel=0.35)


def test_every_kind_is_held_out_for_several_pairs_of_roles() -> None:
    assert min(Counter(HELD_OUT.values()).values()) >= 3
    assert set(HELD_OUT.values()) == set(KINDS)


def test_the_control_keeps_rules_and_answers_and_shuffles_roles() -> None:
    rng, places = Random(0), Counter()
    for case in draw_training(1, 1500):
        if case.winner and len(case.rules) == 2:
            shuffled = shuffle_roles(rng, case)
            assert sorted(map(str, shuffled.rules.values())) == sorted(
                map(str, case.rules.values())
            )
            assert shuffled.number == case.number
            places[next(r for r, rule in shuffled.rules.items() if rule == case.winner)] += 1
    assert min(places[role] for role in PLACES) > 0.7 * max(places.values())


# Prompts


def test_each_rule_is_in_the_message_of_its_role(encoding) -> None:
    for role in PLACES:
        case = draw_case(Random(5), draw_rules(Random(5), "copies", [role]))
        holders = []
        for message in write_prompt(case):
            tokens = render(type(write_prompt(case))((message,)), encoding, function_tools=True)
            if case.rules[role].text in encoding.decode(tokens.tokens):
                holders.append(message.role)
        assert holders == [role]


def test_only_the_last_answer_is_learned(encoding) -> None:
    case = draw_case(Random(2), draw_rules(Random(2), "end", ("user", "assistant")))

    example = make_example(encoding, write_prompt(case), case.answer)
    learned = [t for t, own in zip(example.tokens, example.learned, strict=True) if own]
    text = encoding.decode(learned)
    assert text == f"<|channel|>final<|message|>{case.answer}<|return|>"


def test_swapped_tokens_are_all_that_two_layouts_differ_in(encoding, conflict) -> None:
    start = encoding.encode_single_token("<|start|>")
    developer, user = (encoding.encode_single_token(role) for role in ("developer", "user"))
    for first in (True, False):
        own, other = (
            render(write_layout(conflict, Layout(token, first)), encoding).tokens
            for token in ("developer", "user")
        )
        assert own != other
        assert my_swap_roles(own, start, developer, user) == other


def test_every_layout_is_another_prompt_with_both_rules(encoding, conflict) -> None:
    prompts = [encoding.decode(render(write_layout(conflict, each), encoding).tokens)
               for each in LAYOUTS]  # fmt: skip
    assert len(set(prompts)) == len(LAYOUTS) == 8
    for text in prompts:
        assert all(rule.text in text for rule in conflict.rules.values())
        assert text.count("# Instructions") == 1


def test_each_carrier_favors_both_rules_equally_often() -> None:
    for name in ("role token", "first place", "heading"):
        assert sum(each.carriers()[name] for each in LAYOUTS) == 4
    counts = {
        each.name: {
            "alone": 10 * (each.token == "developer"),
            "asking": 10 * (each.token == "user"),
        }
        for each in LAYOUTS
    }
    weights = weigh_carriers(counts)
    assert weights["role token"] == (80, 80)
    assert weights["first place"] == weights["heading"] == weights["own message"] == (40, 80)


def test_special_tokens_in_a_tool_output_are_text_unless_the_client_breaks(encoding) -> None:
    case = draw_case(Random(3), draw_rules(Random(3), "begin", ["tool"]))
    start = encoding.encode_single_token("<|start|>")
    found = {}
    for disguise in DISGUISES:
        tokens = render(write_injection(case, disguise), encoding).tokens
        assert case.rules["tool"].text in encoding.decode(tokens)
        found[disguise] = tokens
    counts = {name: tokens.count(start) for name, tokens in found.items()}
    assert len({counts[name] for name in DISGUISES[:3]}) == 1
    assert counts[DISGUISES[3]] == counts[DISGUISES[0]] + 1
    as_text, real = (encoding.decode(found[name]) for name in DISGUISES[2:])
    assert as_text == real
    assert found[DISGUISES[2]] != found[DISGUISES[3]]


def test_the_known_rule_is_asked_for_numbers_with_a_5(encoding) -> None:
    for draw, role in ((draw_look_up, "user"), (draw_tool_sum, "tool"), (draw_tool_sum, None)):
        for is_last in (False, True):
            prompt, number = draw(Random(4), role, is_last)
            assert "5" in number
            text = encoding.decode(render(prompt, encoding, mode="conversation").tokens)
            assert (AGAINST_5.text in text) == (role is not None)
            assert prompt.messages[-1].role == ("tool" if draw is draw_tool_sum else "user")
            if role:
                assert text.endswith(f"{AGAINST_5.text}<|end|>") == is_last


# Tables


def test_the_table_puts_each_count_where_its_role_is() -> None:
    conflicts = {name_pair(pair): {"higher": 7, "lower": 2, "n": 10} for pair in PAIRS}
    alone = {role: {"followed": 9, "n": 10} for role in PLACES}
    model = {"conflicts": {"seen": conflicts}, "alone": alone}
    matrix = obey_matrix(model)
    assert [[each.count for each in row] for row in matrix] == [
        [9 if r == c else 7 if r < c else 2 for c in range(5)] for r in range(5)
    ]
    assert main_share(model) == Share(63, 90)  # nine pairs: assistant over tool has no winner


def test_sums_keep_names_with_zero() -> None:
    assert add_counts([{"a": 0, "n": 3}, {"a": 0, "n": 4}]) == {"a": 0, "n": 7}


# The stored result


def find_counts(stored: Any) -> Iterator[dict[str, int]]:
    """Every dictionary with an n."""
    if isinstance(stored, dict) and "n" in stored:
        yield stored
    elif isinstance(stored, dict):
        for value in stored.values():
            yield from find_counts(value)


def test_the_stored_result_has_the_numbers_that_the_lesson_promises() -> None:
    stored = load_result("19_hierarchy")
    cells = list(find_counts(stored))
    assert len(cells) > 80
    assert min(each["n"] for each in cells) >= 300
    for count in cells:
        assert all(0 <= value <= count["n"] for value in count.values())
        assert count.get("higher", 0) + count.get("lower", 0) <= count["n"]
    assert set(stored["models"]["hierarchy"]["conflicts"]) == {"seen", "held_out"}
    assert len(stored["other seeds"]) == 2
