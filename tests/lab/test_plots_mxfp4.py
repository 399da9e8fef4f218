"""Figures of the lesson about MXFP4: weights on the line of a format, and bars by bits."""

import pytest

from oss_lab.errors import LabError
from oss_lab.plots.bits import accuracy_by_bits
from oss_lab.plots.number_line import Ruler, number_line


def test_a_ruler_has_each_value_once():
    figure = number_line({"<b>two": Ruler([1, 0, -0.0, -1])}, "A title")
    (values,) = figure.json()["data"]
    assert values["x"] == [-1, 0, 1]
    assert figure.json()["layout"]["yaxis"]["ticktext"] == ["&lt;b&gt;two"]
    assert figure.sentence == "<b>two: 3 values from -1 to 1."


def test_weights_are_joined_with_what_they_are_rounded_to():
    rulers = {"a": Ruler([0, 1]), "b": Ruler([0, 1], exact=[0.25, 0.5], stored=[0, 1])}
    figure = number_line(rulers, "A title")
    _, _, lines, exact, stored = figure.json()["data"]
    assert lines["x"] == [0.25, 0, None, 0.5, 1, None]
    assert lines["y"] == [-0.5, -1, None, -0.5, -1, None]
    assert (exact["x"], stored["x"]) == ([0.25, 0.5], [0, 1])
    assert figure.sentence == (
        "a: 2 values from 0 to 1; b: 2 values from 0 to 1, to which 2 weights are rounded by at"
        " most 0.5; 1 become 0."
    )
    assert [trace["showlegend"] for trace in figure.json()["data"]][3:] == [True, True]


def test_a_number_line_refuses_what_it_cannot_draw():
    with pytest.raises(LabError, match="nothing to draw"):
        number_line({}, "A title")
    with pytest.raises(LabError, match="a has 1 exact and 2 stored weights"):
        number_line({"a": Ruler([0], exact=[1], stored=[0, 0])}, "A title")


def test_accuracy_by_bits_has_a_bar_for_each_number_of_bits():
    figure = accuracy_by_bits({4: (1.0, 5.7), 3: (0.0, 13.5)}, "12 products")
    right, changes = figure.json()["data"]
    assert (right["x"], right["y"]) == (["4 bits", "3 bits"], [100, 0])
    assert (changes["y"], changes["text"]) == ([5.7, 13.5], ["5.7", "13.5"])
    assert figure.sentence == (
        "4 bits: 100% of 12 products right, logits change by up to 5.7; 3 bits: 0% of 12 products"
        " right, logits change by up to 13.5."
    )
    with pytest.raises(LabError, match="at least one number of bits"):
        accuracy_by_bits({}, "12 products")
