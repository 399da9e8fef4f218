"""The calculator that nano can call is exact, and refuses the rest with one sentence."""

import json

import pytest

from oss_lab.errors import LabError
from oss_lab.nano.calculator import calculate, run_calculator


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("4815*884", "4256460"),
        (" 2 * (3 - 5) ", "-4"),
        ("-(7)", "-7"),
        ("12/4-9/3*2", "-3"),
        ("9" * 60 + "*" + "9" * 60, str(int("9" * 60) ** 2)),
    ],
)
def test_whole_numbers_are_exact(expression, value):
    assert calculate(expression) == value
    assert run_calculator(json.dumps({"expression": expression})) == value


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("", "cannot read the expression ''"),
        ("2*", "cannot read the expression"),
        ("2\x00", "cannot read the expression"),
        ("(" * 150, "cannot read the expression"),
        ("7/2", "7/2 is not a whole number"),
        ("7/(2-2)", "7/0 is not defined"),
        ("9**9**9", r"cannot calculate '9 \*\* 9 \*\* 9'"),
        ("1.5+1", "cannot calculate '1.5'"),
        ("True+1", "cannot calculate 'True'"),
        ("__import__('os')", "cannot calculate"),
        ("1+" * 100 + "1", "the expression has 201 characters; give at most 200"),
    ],
)
def test_anything_else_is_refused(expression, sentence):
    with pytest.raises(LabError, match=sentence):
        calculate(expression)


@pytest.mark.parametrize("arguments", ["", "{", "[]", "{}", '{"expression":3}', '"2+2"'])
def test_a_call_without_an_expression_is_refused(arguments):
    with pytest.raises(LabError, match='have no text "expression"'):
        run_calculator(arguments)
