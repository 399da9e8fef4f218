"""Bars of several series: what is drawn, and what is refused."""

import pytest

from oss_lab.errors import LabError
from oss_lab.plots.bars import compare_bars

SERIES = {"before": {"low": 0.0, "high": 0.1}, "after": {"low": 0.2, "high": 0.985}}


def draw(series, **options):
    return compare_bars(series, "More are right.", title="Right", unit="share right", **options)


def test_each_series_has_a_bar_in_every_group():
    figure = draw(SERIES, percent=True)
    before, after = figure.plotly.to_dict()["data"]
    assert (before["name"], list(before["x"]), list(before["y"])) == (
        "before",
        ["low", "high"],
        [0.0, 0.1],
    )
    assert list(after["text"]) == ["20%", "98%"]
    assert before["marker"]["pattern"] != after["marker"]["pattern"]
    assert repr(figure) == "More are right."
    assert figure.plotly.layout.showlegend
    assert not draw({"after": SERIES["after"]}).plotly.layout.showlegend  # the title names it


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "1 to 3 series, got 0"),
        (dict.fromkeys("abcd", SERIES["before"]), "got 4"),
        ({"before": SERIES["before"], "after": {"high": 1.0}}, "groups low, high"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(series, message):
    with pytest.raises(LabError, match=message):
        draw(series)
