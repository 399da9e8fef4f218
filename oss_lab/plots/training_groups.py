"""Loss by task and by setting: one panel for each, with one line per effort.

The log has one loss for each group of a step. A point is the mean over a span of the run.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GREEN, INDIGO, RED, base, legend_below, plural
from oss_lab.plots.tokens import plotly_text
from oss_lab.plots.training import UNIT, step_values

if TYPE_CHECKING:
    from oss_lab.nano.training.log import TrainingStep

SPANS = 30  # of a run
COLUMNS = 4  # panels side by side
PANEL = 150  # pixels
LINES = {"low": (INDIGO, "dot"), "medium": (RED, "dash"), "high": (GREEN, "solid")}

Curves = Mapping[tuple[str, str], tuple[NDArray[np.int32], NDArray[np.float32]]]
"""(panel, effort) to (steps, mean losses)."""


def task_losses(steps: Sequence["TrainingStep"]) -> Figure:
    """One panel for each task, over all settings."""
    return draw_panels(group_curves(steps, lambda _, task: task), "task")


def setting_losses(steps: Sequence["TrainingStep"]) -> Figure:
    """One panel for each setting, the content of the developer message."""
    return draw_panels(group_curves(steps, lambda setting, _: setting), "setting")


def group_curves(steps: Sequence["TrainingStep"], panel: Callable[[str, str], str]) -> Curves:
    """The groups' losses, collected by panel(setting, task), with one mean per span."""
    gathered: dict[tuple[str, str], dict[int, list[tuple[int, float]]]] = {}
    count = len(step_values(steps, "step"))
    for n, step in enumerate(steps):
        for group, loss in step.groups.items():
            setting, task, effort = group.split("/")
            spans = gathered.setdefault((panel(setting, task), effort), {})
            spans.setdefault(n * SPANS // count, []).append((step.step, loss))
    return {
        name: (
            np.array([np.mean([at for at, _ in span]) for span in spans.values()], np.int32),
            np.array([np.mean([loss for _, loss in span]) for span in spans.values()], np.float32),
        )
        for name, spans in gathered.items()
    }


def draw_panels(curves: Curves, kind: str) -> Figure:
    """All panels on the same axes, in alphabetical order."""
    if not curves:
        raise LabError("the steps have no losses by group; draw a log that has them")
    names = sorted({name for name, _ in curves})
    rows, columns = ceil(len(names) / COLUMNS), min(COLUMNS, len(names))
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[plotly_text(name) for name in names],
        shared_xaxes="all",  # pyright: ignore[reportArgumentType]
        shared_yaxes="all",  # pyright: ignore[reportArgumentType]
        vertical_spacing=0.3 / (rows + 1),
        horizontal_spacing=0.03,
    )
    figure.update_annotations(font_size=12)
    named = set[str]()
    for effort, (color, dash) in LINES.items():
        for n, name in enumerate(names):
            if (name, effort) not in curves:
                continue
            x, y = curves[name, effort]
            figure.add_scatter(
                x=x,
                y=y,
                row=n // columns + 1,
                col=n % columns + 1,
                mode="lines" if len(x) > 1 else "markers",
                name=f"{effort} effort",
                legendgroup=effort,
                showlegend=effort not in named,
                line={"color": color, "dash": dash, "width": 2},
                hovertemplate="step %{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
            )
            named.add(effort)
    subtitle = f"{UNIT}; a point is the mean over a span of the run"
    base(figure, f"Loss by {kind}", subtitle, 190 + PANEL * rows, above=18)
    legend_below(figure)
    figure.update_yaxes(type="log", dtick=1)
    figure.update_yaxes(title_text="nats", col=1)
    for n in range(max(0, len(names) - columns), len(names)):  # the lowest of each column
        row, column = divmod(n, columns)
        figure.update_xaxes(title="step", showticklabels=True, row=row + 1, col=column + 1)
    return Figure(figure, _sentence(curves, len(names), kind))


def _sentence(curves: Curves, count: int, kind: str) -> str:
    last = {key: line[-1] for key, (_, line) in curves.items()}
    worst, best = max(last, key=last.__getitem__), min(last, key=last.__getitem__)
    if len(last) == 1:
        return (
            f"{plural(count, kind)}; at the end the loss in {worst[0]} at {worst[1]} effort is"
            f" {last[worst]:.3f} {UNIT}."
        )
    return (
        f"{plural(count, kind)}; at the end the loss is highest in {worst[0]} at {worst[1]} effort"
        f" ({last[worst]:.3f} {UNIT}) and lowest in {best[0]} at {best[1]} effort"
        f" ({last[best]:.3f})."
    )
