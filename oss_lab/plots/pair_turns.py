"""How often the pairs of a head turn within the initial context: RoPE and YaRN side by side."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GRAY, LINES, base, legend_below, plural, to_array
from oss_lab.plots.tokens import plotly_text

SYMBOLS = ("circle", "diamond", "square", "x")
SAME = 1e-3  # the largest relative difference of frequencies that count as equal


@check_arguments
def pair_turns(frequencies: Mapping[str, Any], config: ModelConfig) -> Figure:
    """Turns of each pair within the initial context, one line for each set of frequencies.

    Args:
        frequencies: by name, each [pair] in radians per position; the first ones are unscaled.

    Raises:
        LabError: there are none or too many, or they differ in length.
    """
    lines = {name: to_array(each, "pair") for name, each in frequencies.items()}
    if not 1 <= len(lines) <= len(SYMBOLS) or len({len(each) for each in lines.values()}) != 1:
        raise LabError(
            f"give 1 to {len(SYMBOLS)} sets of frequencies with the same number of pairs"
        )
    context = config.initial_context_length
    figure = go.Figure()
    for n, (name, line) in enumerate(lines.items()):
        figure.add_scatter(
            x=np.arange(len(line)),
            y=(line * context / (2 * math.pi)).astype(np.float32),
            name=plotly_text(name),
            mode="lines+markers",
            line={"color": LINES[n], "dash": "solid" if n == 0 else "dash"},
            marker={"symbol": SYMBOLS[n], "size": 8},
            hovertemplate="pair %{x}: %{y:.3g} turns<extra>%{fullData.name}</extra>",
        )
    for turns in (config.rope_ntk_alpha, config.rope_ntk_beta):
        figure.add_hline(turns, line={"color": GRAY, "dash": "dot", "width": 1})
        figure.add_annotation(
            text=plural(round(turns), "turn"), x=1, xref="paper", xanchor="right",
            y=math.log10(turns), yanchor="bottom", showarrow=False,
        )  # fmt: skip
    subtitle = f"{context:,} tokens; pairs between the dotted lines are blended"
    base(figure, "Turns of each pair within the initial context", subtitle, 380)
    legend_below(figure)
    (_, first), *others = lines.items()
    figure.update_xaxes(title="pair of dimensions", dtick=1 if len(first) <= 16 else 4)
    figure.update_yaxes(title_text="turns", type="log", exponentformat="power", dtick=1)
    turns = first * context / (2 * math.pi)
    return Figure(
        figure,
        f"Within {context:,} tokens the fastest pair turns {turns[0]:.3g} times and the slowest"
        f" {turns[-1]:.3g} times"
        + "".join(f"; {compare(name, first / each)}" for name, each in others)
        + ".",
    )


def compare(name: str, slowed: NDArray[np.float64]) -> str:
    """How many pairs are unchanged, and how many are slowed by the largest factor."""
    most = slowed.max()
    kept, slowest = (int((abs(slowed / by - 1) < SAME).sum()) for by in (1.0, most))
    return (
        f"{name} keeps {plural(kept, 'pair')}, slows {slowest} by {most:.3g} and blends"
        f" {len(slowed) - kept - slowest}"
    )
