"""When a final answer is right: tables of what models write, and of answers that only look
right.
"""

import time

import pytest

from oss_lab.evaluation.grade import Boxed, Choice, WrittenAnswer, find_chosen_letter


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("42", "42"),
        ("42", " 42\n"),
        ("42", "The answer is 42."),
        ("42", "the answer is...42"),
        ("42", "042"),
        ("42", "42km"),
        ("42", "$42$"),
        ("42", r"so \boxed{42}"),
        ("42", "**42**"),
        ("+5", "5"),
        ("5", "10-5"),
        ("-5", "x = -5"),
        ("-5", "x=\u22125"),
        ("-3", "(-3)"),
        ("-3", "5 - -3"),
        ("3", "f(2)-3"),
        ("0", "-0"),
        ("1234", "1,234"),
        ("1,234", "1234.0"),
        ("1234", "1{,}234"),
        ("1234", "1\u202f234"),
        ("1000000", r"1\,000\,000"),
        ("1000", "1e3"),
        ("3", "1,2,3"),
        ("2345", "1,2345"),
        ("3.2", "It is 3.2."),
        (".5", "0.50"),
        ("0.5", "1/2"),
        ("1/2", "0.5"),
        ("7", "(7)"),
        ("5", "on 2024-05-05"),
        ("9" * 5000, "9" * 5000),
        ("Paris", "Paris\n"),
        ("50%", "50%"),
        ("I only know sums.", "I only know sums."),
    ],
)
def test_right(answer, final):
    assert WrittenAnswer(answer).accepts(final)


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("42", ""),
        ("42", "forty-two"),
        ("42", "4242"),
        ("42", "-42"),
        ("42", "H42"),
        ("42", "42 or 43"),
        ("42", "4 2"),
        ("5", "-5"),
        ("5", ".5"),
        ("234", "1,234"),
        ("12345", "1,2345"),
        ("2", "1/2"),
        ("2", "3.2"),
        ("1", "5/2/3"),
        ("3", "1/0"),
        ("1", "1e999999999"),
        ("1", "1e" + "9" * 5000),
        ("7", "\u0667"),  # Python's \d matches this digit
        ("1", "9" * 5000 + "1"),
        ("Paris", "paris"),
        ("Paris", "It is Paris."),
        ("50%", "50"),
        ("nan", "NaN"),
    ],
)
def test_wrong(answer, final):
    assert not WrittenAnswer(answer).accepts(final)


@pytest.mark.parametrize(
    ("final", "right"),
    [
        (r"\boxed{42}", True),
        (r"\boxed{042}", True),
        (r"$\boxed{42}$ in 3 steps", True),
        (r"\boxed{42^\circ}", True),
        (r"\boxed{\text{42}}", True),
        (r"\boxed{1}, no: \boxed{42}", True),
        (r"\boxed{42} \boxed{}", True),
        ("42", True),
        ("so it is 042.", True),
        (r"\boxed{41}, not 42", False),
        (r"\boxed{x}, that is 42", False),
        (r"\boxed{42}, no: \boxed{41}", False),
        (r"\boxed{-42}", False),
        ("", False),
    ],
)
def test_boxed(final, right):
    assert Boxed(42).accepts(final) is right


@pytest.mark.parametrize(
    ("final", "letter"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(B)", "B"),
        ("**D**", "D"),
        ("_B_", "B"),
        ("Answer: B", "B"),
        ("**Answer:** A", "A"),
        ("answer — C", "C"),
        ("Answer: $B$", "B"),
        ("The final answer is **(D) 42**", "D"),
        ("the correct answer is option (D).", "D"),
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"$\boxed{\textbf{(C)}\ 12}$", "C"),
        (r"\boxed{A \text{ } 2.08\times10^{-6}}", "A"),
        ("A is wrong, so the answer is C.", "C"),
        ("Answer: B\nno wait\nAnswer: D", "D"),
        ("It is (A). Yes, (A).", "A"),
        ("B) 24\n\nbecause 4 * 6 is", "B"),
        ("A cat.\n\nB", "B"),
        ("Because of option C", "C"),
        ("Answer: C and that is that", "C"),
        ("The answer is not A", None),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("Answer: Apple", None),
        ("The answer is a matter of taste", None),
        ("A matter of taste", None),
        ("I like (A) and (B)", None),
        ("A) x\nB) y\nC) z\nD) w", None),
        ("Dunno", None),
        ("E", None),
        ("\u0412", None),  # a Cyrillic letter that looks like B
        ("", None),
    ],
)
def test_choice(final, letter):
    assert find_chosen_letter(final) == letter
    assert Choice("B").accepts(final) is (letter == "B")


@pytest.mark.parametrize(
    "piece", ["1,", "1/", "-", r"\boxed{", "{}", "(A", "Answer ", "9", "1e", "_"]
)
def test_very_long_replies_are_graded_quickly(piece):
    began = time.process_time()
    for answer in (WrittenAnswer("42"), Boxed(42), Choice("B")):
        answer.accepts(piece * 20_000)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "final", [r"\boxed{\frac{1}{2}}", r"\boxed{10\sqrt{2}}", r"\boxed{2^{10}}", r"\boxed{2\pi}"]
)
def test_a_formula_in_the_box_is_not_an_integer(final):
    assert not Boxed(2).accepts(final)


def test_long_runs_of_spaces_are_graded_quickly():
    began = time.process_time()
    for filler in (" ", "\n", "_"):
        find_chosen_letter("answer" + filler * 100_000 + "x")
    assert time.process_time() - began < 5
