"""What a checker prints about a mistake that it does not know: short, and at the right place."""

from typing import Any

import pytest
import torch

from oss_lab.course.compare import explain, show_value
from oss_lab.harmony import Message
from oss_lab.tokenizer import load_vocabulary

ENCODING = load_vocabulary("nano")
CALL = Message.of("assistant", "{}", channel="commentary", recipient="functions.add")


@pytest.mark.parametrize(
    ("wanted", "got", "text"),
    [
        ([1, 2, 3], [1, 5, 3], "5 at [1] of [1, 5, 3]; expected 2"),
        ([1, 2, 3], [1, 2], "2 values, [1, 2]; expected 3, [1, 2, 3]"),
        ((127, [4, 5]), (127, [4, 6]), "6 at [1] of [4, 6] in result 1; expected 5"),
        ((127, [4]), ([4], 127), "[4] in result 0; expected 127"),
        (torch.zeros(2), torch.tensor([0.0, 3.0]), "3 at [1]; expected 0"),
        (torch.tensor([True]), torch.tensor([False]), "False at [0]; expected True"),
        ((torch.ones(1), torch.zeros(1)), (torch.ones(1),) * 2, "1 at [0] in result 1; expected 0"),
        (torch.zeros(9), torch.zeros(3, 3), "a tensor [3, 3] float32 on cpu; expected a tensor"),
        ([1], (n for n in [1]), "a generator, which has computed nothing yet; expected [1]"),
        (None, ("attention", 1), "('attention', 1); expected None"),
        (5, 5.0, "a float, 5.0; expected an int, 5"),
        (torch.tensor(2.5), 2.5, "a float, 2.5; expected a tensor, tensor 2.5"),
        (2.5, torch.tensor(2.5), "a tensor, tensor 2.5; expected a float, 2.5"),
    ],
)
def test_the_first_difference_is_named(wanted: Any, got: Any, text: str) -> None:
    assert f"With 4 it returned {text}" in explain((4,), wanted, got, 1e-5)


def test_ids_are_shown_with_their_tokens() -> None:
    ids = ENCODING.encode_ordinary("What is")
    text = explain((CALL, ENCODING), ids, [ids[0], ids[0]], 0)
    assert f"{ids[0]} ('What') at [1]" in text
    assert f"expected {ids[1]} (' is')" in text
    assert "With the ids of 'What is', encoding it" in explain((ids, ENCODING), 1, "x", 0)


def test_a_message_is_shown_with_all_fields_that_it_has() -> None:
    fields = "role='assistant', channel='commentary', recipient='functions.add', text='{}'"
    assert show_value(CALL) == f"Message({fields})"


def test_large_values_are_short_and_no_address_is_shown() -> None:
    values = [{n: n for n in range(300)}, [object()] * 24, [len, lambda: 1], torch.rand(5)]
    for each in values:
        assert len(show_value(each)) < 120
        assert " at 0x" not in show_value(each)
    assert show_value(values[0]) == "{0: 0, 1: 1, … 300 in all}"
    assert show_value(torch.tensor([0.123456, 1.0])) == "tensor [0.1235, 1.0]"
