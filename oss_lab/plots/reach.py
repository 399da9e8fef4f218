"""How far back the information at one position can come from, layer by layer."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GRAY, LINES, base, legend_below, plural
from oss_lab.plots.tokens import plotly_text

PATTERNS = ("", "/", ".", "x")


@check_arguments
def reach(earliest: Mapping[str, Sequence[int]], target: int) -> Figure:
    """A bar per layer, over the positions that the target can depend on after it.

    Args:
        earliest: by name, the first such position after each layer, as `earliest_positions` of
            `oss_lab.analysis.reach` returns it.

    Raises:
        LabError: there are no models, or too many, or they differ in layers.
    """
    if not 1 <= len(earliest) <= len(PATTERNS) or len({*map(len, earliest.values())}) != 1:
        raise LabError(f"give 1 to {len(PATTERNS)} models with the same number of layers")
    figure, parts = go.Figure(), []
    for n, (name, firsts) in enumerate(earliest.items()):
        figure.add_bar(
            y=[f"layer {layer}" for layer in range(len(firsts))],
            x=[target - first + 1 for first in firsts],
            base=list(firsts),
            orientation="h",
            name=plotly_text(name),
            marker={
                "color": LINES[n],
                "pattern": {"shape": PATTERNS[n], "fgcolor": GRAY, "fillmode": "overlay"},
            },
            hovertemplate="%{y}: from position %{base}<extra>%{fullData.name}</extra>",
        )
        back = ", ".join(str(target - first) for first in firsts)
        parts.append(f"{name}: {back}")
    subtitle = f"positions that position {target} can depend on after each layer"
    count = len(next(iter(earliest.values())))
    base(figure, "How far information reaches", subtitle, 160 + 40 * count)
    legend_below(figure)
    figure.update_xaxes(title="position", range=[-0.02 * target, 1.02 * target + 1])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return Figure(
        figure,
        f"Positions back that position {target} can depend on, after each of"
        f" {plural(count, 'layer')}; {'; '.join(parts)}.",
    )
