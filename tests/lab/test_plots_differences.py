"""The map of where two models differ, from hand-made numbers."""

from typing import Any

import numpy as np
import pytest

from oss_lab import plots
from oss_lab.errors import LabError


def test_differences_frame_the_first_point_in_the_order_of_the_computation():
    apart = {(p, n): 1e-6 for n in (0, 1) for p in ("attn.q", "attn.out", "moe.out")}
    assert plots.differences(apart).sentence == (
        "The models do not differ by more than 0.0001 at any point."
    )
    apart |= {("moe.out", 0): 0.25, ("attn.q", 1): 40.0, ("attn.out", 1): 0.5}
    figure = plots.differences(apart)
    assert figure.sentence == (
        "The models first differ in layer 0, at moe.out (relative difference 0.25); 3 of 6 points"
        " differ."
    )
    drawn: Any = figure.plotly
    (frame,) = drawn.layout.shapes
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (1.5, 2.5, -0.5, 0.5)
    heat = next(drawn.select_traces(selector={"type": "heatmap"}))
    assert np.allclose(heat.z, [[-4, -4, -0.6], [1, -0.3, -4]], atol=0.01)
    del apart["attn.q", 0]
    with pytest.raises(LabError, match="for every point of every layer"):
        plots.differences(apart)
