"""The map of shares: its cells, their intervals in the table, and what is refused."""

from typing import Any

import pytest

from oss_lab.analysis.statistics.shares import Share
from oss_lab.errors import LabError
from oss_lab.plots.share_map import share_map

NAMES = ["user", "<b>tool"]
SHARES = [[Share(8, 10), Share(9, 10)], [Share(0, 10), Share(1, 20)]]


def draw(shares=SHARES, names=NAMES):
    return share_map(
        shares, "The user wins.", names=names, title="Who wins", unit="follows", rows="whose rule",
        columns="who contradicts",
    )  # fmt: skip


def test_each_cell_has_its_percent_and_the_table_its_interval():
    figure = draw()
    traces: list[Any] = list(figure.plotly.select_traces())
    heat, *texts = traces
    assert heat["z"].tolist() == [[80, 90], [0, 5]]
    shown = {text for each in texts for text in each["customdata"]}
    assert shown == {"80", "90", "0", "5"}
    table = str(figure.table())
    assert "49.0 to 94.3 (80)" in table  # wilson(8, 10)
    assert "0.0 to 27.8 (0)" in table  # wilson(0, 10)
    assert figure.sentence == "The user wins."
    assert "n = 10 or 20" in figure.plotly.layout.title.text + str(figure.plotly.layout)
    assert figure.plotly.layout.yaxis.title.text == "whose rule"


def test_names_are_text_and_not_tags():
    assert "<b>" not in str(draw().plotly.to_dict()["data"][0]["x"])


def test_a_share_of_nothing_and_a_missing_cell_are_refused():
    with pytest.raises(LabError, match="a share is of nothing"):
        draw([[Share(1, 2), Share(0, 0)], [Share(1, 2), Share(1, 2)]])
    with pytest.raises(LabError, match="expected 2 rows of 2 shares"):
        draw(SHARES[:1])
