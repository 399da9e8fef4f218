"""Figures of the lesson about attention from hand-made numbers: the drawing and the sentence."""

from typing import Any

import numpy as np
import pytest

from oss_lab import plots
from oss_lab.errors import LabError
from oss_lab.record.token_labels import TokenLabel


def plotly_figure(figure) -> Any:
    """The plotly figure, whose attributes depend on what is drawn."""
    return figure.plotly


def labels(*texts):
    return [TokenLabel(text, 0, "assistant", "analysis", None, "content") for text in texts]


def test_a_row_of_attention_has_a_bar_per_token_and_one_for_the_sink():
    figure = plots.attention_row([0.5, 0.125, 0.125], 0.25, labels("<b>", "\n", "c"))
    sink, tokens = plotly_figure(figure).data
    assert (sink.x.tolist(), sink.y.tolist()) == ([-2], [25])
    assert (tokens.x.tolist(), tokens.y.tolist()) == ([0, 1, 2], [50, 12.5, 12.5])
    axis = plotly_figure(figure).layout.xaxis
    assert axis.ticktext == ("<b>sink</b>", "&lt;b&gt;", "↵", "c")
    assert figure.sentence == (
        "“c” gives 50% of its attention to “<b>”, 2 positions back, and 25% to the sink; all tokens"
        " together get 75%."
    )


def test_a_row_of_attention_shows_the_newest_tokens():
    weights = np.zeros(50)
    weights[3] = 1
    figure = plots.attention_row(weights, 0.0, labels(*"ab" * 25))
    _, tokens = plotly_figure(figure).data
    assert tokens.x.tolist() == list(range(10, 50))
    assert "“b”, 46 positions back" in figure.sentence
    with pytest.raises(LabError, match="there are 2 token labels for 50 positions"):
        plots.attention_row(weights, 0.0, labels("a", "b"))
    weights[0] = np.nan
    with pytest.raises(LabError, match="1 of 50 values are NaN"):
        plots.attention_row(weights, 0.0, labels(*"ab" * 25))


def test_reach_draws_a_bar_from_the_earliest_position_to_the_target():
    figure = plots.reach({"nano": (6, 0), "<i>": (6, 3)}, 9)
    nano, other = plotly_figure(figure).data
    assert (nano.base, list(nano.x)) == ((6, 0), [4, 10])
    assert (other.base, list(other.x)) == ((6, 3), [4, 7])
    assert other.name == "&lt;i&gt;"
    assert figure.sentence == (
        "Positions back that position 9 can depend on, after each of 2 layers; nano: 3, 9;"
        " <i>: 3, 6."
    )
    with pytest.raises(LabError, match="the same number of layers"):
        plots.reach({"a": (1,), "b": (1, 2)}, 3)


def test_cache_size_is_in_gigabytes():
    figure = plots.cache_size([1, 1000], {"all": [0, 2_500_000_000], "window": [0, 10**9]})
    first, _ = plotly_figure(figure).data
    assert first.y.tolist() == [0, 2.5]
    assert figure.sentence == "At 1,000 tokens, all: 2.50 GB; window: 1.00 GB."
    assert figure.table().parts[1][1][-1] == ["1000", "1"]
    with pytest.raises(LabError, match="'all' has 1 sizes for 2 lengths"):
        plots.cache_size([1, 2], {"all": [1]})
    with pytest.raises(LabError, match="at least one length"):
        plots.cache_size([], {"all": []})
