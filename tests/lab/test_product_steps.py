"""The lines of a product's analysis, and how they continue after a wrong result."""

from random import Random

import pytest

from oss_lab.nano.tasks.product_steps import (
    compute_answer,
    join_steps,
    list_misreadings,
    work_out_product,
    write_product_thoughts,
)


@pytest.mark.parametrize("effort", ["medium", "high"])
def test_an_unchanged_analysis_results_in_the_product(effort):
    rng = Random(0)
    for _ in range(500):
        a, b = rng.randrange(1000), rng.randrange(100)
        assert compute_answer(work_out_product(a, b, effort)) == a * b


MEDIUM = "347*2:14,09,06=694\n347*60:42,28,20=20820"
HIGH = """\
347*2
7*2+0=14
4*2+1=09
3*2+0=06
=694
347*60
7*6+0=42
4*6+4=28
3*6+2=20
=20820
694+20820
4+0+0=04
9+2+0=11
6+8+1=15
0+0+1=01
0+2+0=02
=21514"""


def test_analyses_worked_out_by_hand():
    assert write_product_thoughts(347, 62) == {"low": "", "medium": MEDIUM, "high": HIGH}


@pytest.mark.parametrize(
    ("place", "written", "follows", "came_to"),
    [
        # 14 read as 24: 8 + 2 = 10, the carry continues, and the partial product is 704.
        (0, "24", ["4*2+2=10", "3*2+1=07", "=704", "347*60"], 704 + 20820),
        # 694 read as 684: the sum starts from 684.
        (3, "684", ["347*60", "7*6+0=42"], 684 + 20820),
        # All digits of the last digit product are written: 20 read as 25 makes 25,820.
        (6, "25", ["=25820", "694+25820", "4+0+0=04"], 694 + 25820),
        # In the sum, 11 read as 01: nothing is carried into the hundreds.
        (9, "01", ["6+8+0=14", "0+0+1=01", "0+2+0=02", "=21414"], 21414),
        # The total itself: the answer is the written number.
        (13, "21513", [], 21513),
    ],
)
def test_consequences_of_a_changed_result_worked_out_by_hand(place, written, follows, came_to):
    given = [*(step.result for step in work_out_product(347, 62, "high")[:place]), written]
    steps = work_out_product(347, 62, "high", given)
    lines = join_steps(steps).split("\n")
    changed = join_steps(steps[: place + 1]).count("\n")
    assert lines[:changed] == HIGH.split("\n")[:changed]
    assert lines[changed + 1 :][: len(follows)] == follows
    assert compute_answer(steps) == came_to


def test_at_medium_effort_the_changed_partial_products_are_added():
    assert join_steps(work_out_product(347, 62, "medium", ["14", "08"])) == (
        "347*2:14,08,06=684\n347*60:42,28,20=20820"
    )
    steps = work_out_product(347, 62, "medium", ["14", "09", "06", "691"])
    assert compute_answer(steps) == 691 + 20820


@pytest.mark.parametrize("effort", ["medium", "high"])
def test_a_change_is_one_digit_and_always_changes_the_answer(effort):
    rng = Random(1)
    for _ in range(20):
        a, b = rng.randrange(100, 1000), rng.randrange(10, 100)
        steps = work_out_product(a, b, effort)
        for place, step in enumerate(steps):
            changes = list_misreadings(step)
            assert changes
            for result in changes:
                assert sum(x != y for x, y in zip(result, step.result, strict=True)) == 1
                given = [*(s.result for s in steps[:place]), result]
                assert compute_answer(work_out_product(a, b, effort, given)) != a * b


def test_a_change_carries_no_more_than_the_operation_can():
    first, *_ = work_out_product(347, 62, "high")
    assert list_misreadings(first) == ["04", *(f"1{d}" for d in "012356789")]
    total = work_out_product(11, 1, "high")[-1]
    assert total.result == "11"
    assert list_misreadings(total) == [
        *(f"{d}1" for d in "23456789"),
        *(f"1{d}" for d in "023456789"),
    ]
