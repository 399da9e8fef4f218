"""Lines of shares with their intervals: what is drawn, and what is refused."""

import pytest

from oss_lab.analysis.statistics.shares import Share
from oss_lab.errors import LabError
from oss_lab.plots.shares import compare_shares

SERIES = {
    "kept": {"2": Share(8, 10), "3": Share(9, 10)},
    "dropped": {"2": Share(8, 10), "3": Share(0, 10)},
}


def draw(series):
    return compare_shares(series, title="Success", unit="right", groups="calls")


def test_each_share_has_a_marker_and_wilsons_interval():
    figure = draw(SERIES)
    kept, dropped = figure.plotly.to_dict()["data"]
    assert (kept["name"], list(kept["x"]), list(kept["y"])) == ("kept", ["2", "3"], [80, 90])
    assert list(dropped["y"]) == [80, 0]
    high = [y + up for y, up in zip(dropped["y"], dropped["error_y"]["array"], strict=True)]
    low = [y - up for y, up in zip(dropped["y"], dropped["error_y"]["arrayminus"], strict=True)]
    assert high == pytest.approx([94.33, 27.75], abs=0.02)  # wilson(8, 10), wilson(0, 10)
    assert low == pytest.approx([49.02, 0], abs=0.02)
    for field in ("color", "dash"):
        assert kept["line"][field] != dropped["line"][field]
    assert kept["marker"]["symbol"] != dropped["marker"]["symbol"]
    assert figure.plotly.layout.title.text == "Success"
    assert figure.plotly.layout.showlegend
    assert figure.plotly.layout.xaxis.title.text == "calls"
    assert figure.plotly.layout.yaxis.title.text == "right, %"


def test_the_sentence_has_every_share():
    assert draw(SERIES).sentence == (
        "Share right of 10, with 95% intervals. kept: 2 calls 80% (49% to 94%), 3 calls 90% (60% to"
        " 98%); dropped: 2 calls 80% (49% to 94%), 3 calls 0% (0% to 28%)."
    )


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "1 to 3 series, got 0"),
        (dict.fromkeys("abcd", SERIES["kept"]), "got 4"),
        ({"kept": SERIES["kept"], "dropped": {"3": Share(1, 10)}}, "groups 2, 3"),
        ({"kept": {"2": Share(1, 10), "3": Share(1, 9)}}, r"the same number.*got \[9, 10\]"),
        ({"kept": {"2": Share(0, 0)}}, r"1 or more; got \[0\]"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(series, message):
    with pytest.raises(LabError, match=message):
        draw(series)
