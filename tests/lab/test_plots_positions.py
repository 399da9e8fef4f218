"""Figures of the lesson about positions from hand-made numbers: the drawing and the sentence."""

import math
from typing import Any

import numpy as np
import pytest

from oss_lab import plots
from oss_lab.config import GPT_OSS_NANO
from oss_lab.errors import LabError


def plotly_figure(figure) -> Any:
    """The plotly figure, whose attributes depend on what is drawn."""
    return figure.plotly


def test_clock_hands_turn_by_the_frequency_times_the_distance():
    figure = plots.clock_hands([math.pi / 2, 0.0], (1, 2))
    at_1, at_2 = plotly_figure(figure).data
    assert at_1.x.tolist() == [0, 3.4]  # the second clock is 2.4 to the right, its hand 1 more
    assert at_1.y.tolist() == [1, 0]
    assert at_2.x.tolist() == [-1, 3.4]
    assert (at_1.name, at_2.name) == ("position 1", "position 2")
    hands = [shape for shape in plotly_figure(figure).layout.shapes if shape.type == "line"]
    ends = [[hand.x0, hand.x1, hand.y1] for hand in hands[:2]]
    assert np.allclose(ends, [[0, 0, 1], [2.4, 3.4, 0]])
    assert figure.sentence == (
        "From position 1 to 2, the hands of pairs 0 to 1 turn by 90, 0 degrees."
    )
    with pytest.raises(LabError, match="17 frequencies; give 1 to 16"):
        plots.clock_hands(np.ones(17), (0, 1))


def test_pair_turns_counts_what_yarn_keeps_slows_and_blends():
    plain = np.array([1.0, 0.1, 0.01, 0.001])
    figure = plots.pair_turns({"RoPE": plain, "<b>": plain / [1, 2, 32, 32]}, GPT_OSS_NANO)
    first, second = plotly_figure(figure).data
    assert first.y[0] == pytest.approx(256 / (2 * math.pi))
    assert second.y[3] == pytest.approx(first.y[3] / 32)
    assert second.name == "&lt;b&gt;"
    assert [shape.y0 for shape in plotly_figure(figure).layout.shapes] == [1, 32]
    assert [note.text for note in plotly_figure(figure).layout.annotations] == [
        "1 turn",
        "32 turns",
    ]
    assert figure.sentence == (
        "Within 256 tokens the fastest pair turns 40.7 times and the slowest 0.0407 times; <b>"
        " keeps 1 pair, slows 2 by 32 and blends 1."
    )
    with pytest.raises(LabError, match="the same number of pairs"):
        plots.pair_turns({"a": plain, "b": plain[1:]}, GPT_OSS_NANO)


def test_stream_size_shows_the_mean_and_the_range_over_tokens():
    vectors = np.array([[[3.0, -3.0], [1.0, 1.0]], [[8.0, 8.0], [8.0, -8.0]]])
    figure = plots.stream_size({"the stream": vectors})
    (line,) = plotly_figure(figure).data
    assert line.y.tolist() == [2, 8]
    assert (line.error_y.array.tolist(), line.error_y.arrayminus.tolist()) == ([1, 0], [1, 0])
    assert figure.sentence == (
        "The mean root mean square: that of the stream is 2.0 in layer 0 and 8.0 in the last."
    )
    with pytest.raises(LabError, match="give 1 to 4 sets"):
        plots.stream_size({})


def test_the_tables_have_every_point():
    parts = plots.clock_hands([1.0, 0.1], (3, 5)).table().parts
    assert [name for name, _ in parts] == ["position 3", "position 5"]
    assert parts[0][1][2][-1] == "pair 1: 11.5°"
    (_, rows), _ = plots.pair_turns({"a": [1.0], "b": [0.5]}, GPT_OSS_NANO).table().parts
    assert rows == [["pair of dimensions", "turns"], ["0", "40.74"]]
