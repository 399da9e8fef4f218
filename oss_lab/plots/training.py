"""How a training run went: loss, routing, gradients and speed, from the lines of its log.

A thin line is the log itself, or means of neighboring steps if there are more than POINTS. A thick
line is its moving mean over a twentieth of the run. Loss by task is in `training_groups.py`.
"""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Protocol

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GRAY, GREEN, INDIGO, RED, base, legend_below, plural

if TYPE_CHECKING:
    from oss_lab.nano.training.log import TrainingStep

POINTS = 400  # per line
TICKS = [m * 10.0**n for n in range(-5, 4) for m in (1, 2, 5)]  # of logarithmic axes
UNIT = "nats per learned token"


class Step(Protocol):
    """What the curves of any training run need of a step."""

    @property
    def loss(self) -> float: ...
    @property
    def learnt_tokens(self) -> int: ...
    @property
    def gradient_norm(self) -> float: ...
    @property
    def seconds(self) -> float: ...


def training_loss(steps: Sequence[Step]) -> Figure:
    """Loss over the steps."""
    loss = step_values(steps, "loss")
    figure = go.Figure()
    add_curve(figure, loss, "loss", INDIGO)
    set_layout(figure, "Loss", f"{UNIT}, mean over all groups of a step", UNIT, logarithmic=True)
    end = final_mean(loss)
    moves = "falls" if end < loss[0] else "rises" if end > loss[0] else "goes"
    return Figure(
        figure,
        f"Over {plural(len(steps), 'step')} the loss {moves} from {loss[0]:.2f} to"
        f" {final_mean(loss):.3f} {UNIT} (mean of the last twentieth).",
    )


def routing(steps: Sequence["TrainingStep"]) -> Figure:
    """How evenly the experts are used: 1 is even, for the load and for the balance loss."""
    load, balance = step_values(steps, "load"), step_values(steps, "balance")
    figure = go.Figure()
    add_curve(figure, load, "busiest expert's load", INDIGO)
    add_curve(figure, balance, "balance loss", RED, dash="dash")
    title = "How evenly the experts are used"
    set_layout(
        figure, title, "1 is even; load: the busiest expert's share divided by an even share", ""
    )
    figure.update_yaxes(title_text="times even", rangemode="tozero")
    return Figure(
        figure,
        f"At the end the busiest expert of a layer gets {final_mean(load):.2f} times an even share"
        f" on average (maximum of the run: {load.max():.2f}), and the balance loss ends at"
        f" {final_mean(balance):.2f}.",
    )


def gradient_norm(steps: Sequence[Step], clip: float) -> Figure:
    """The norm of the gradient of all weights before it is clipped to `clip`."""
    norm = step_values(steps, "gradient_norm")
    figure = go.Figure()
    add_curve(figure, norm, "gradient norm", GREEN)
    figure.add_hline(clip, line={"color": GRAY, "dash": "dash", "width": 1})
    subtitle = f"over all weights; clipped above the dashed line at {clip:g}"
    set_layout(figure, "Gradient norm", subtitle, "norm", logarithmic=True)
    return Figure(
        figure,
        f"The gradient norm ends at {final_mean(norm):.2f}; {np.mean(norm > clip):.0%} of the steps"
        f" were clipped to {clip:g}.",
    )


def speed(steps: Sequence[Step]) -> Figure:
    """Learned tokens per second of wall time; questions and padding are not counted."""
    tokens, seconds = step_values(steps, "learnt_tokens"), step_values(steps, "seconds")
    figure = go.Figure()
    add_curve(figure, tokens / np.maximum(seconds, 1e-3), "tokens/s", GREEN)
    set_layout(figure, "Speed", "learned tokens per second of wall time", "tokens/s")
    figure.update_yaxes(rangemode="tozero")
    return Figure(
        figure,
        f"{tokens.sum():,.0f} tokens were learned in {seconds.sum() / 60:,.1f} minutes,"
        f" {tokens.sum() / max(seconds.sum(), 1e-3):,.0f} per second.",
    )


def step_values(steps: Sequence[Step], field: str) -> NDArray[np.float64]:
    """One field of every step."""
    if not steps:
        raise LabError("there are no steps to draw: train at least one")
    return np.array([getattr(step, field) for step in steps], dtype=np.float64)


def final_mean(line: NDArray[np.float64]) -> float:
    """The mean of the last twentieth."""
    return float(line[-ceil(len(line) / 20) :].mean())


def moving_mean(line: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Each value's mean with up to `window` // 2 neighbors on either side.

    >>> moving_mean(np.array([4.0, 2.0, 0.0]), 3).tolist()
    [3.0, 2.0, 1.0]
    """
    total, place = np.concatenate(([0.0], np.cumsum(line))), np.arange(len(line))
    start = np.maximum(place - window // 2, 0)
    end = np.minimum(place + window // 2 + 1, len(line))
    return (total[end] - total[start]) / (end - start)


def thin_line(line: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(steps, values): at most POINTS means of neighbors."""
    size = ceil(len(line) / POINTS)
    starts = np.arange(0, len(line), size)
    counts = np.diff(np.append(starts, len(line)))
    means = np.add.reduceat(line, starts) / counts
    return (starts + (counts - 1) // 2).astype(np.int32), means.astype(np.float32)


def add_curve(
    figure: go.Figure, line: NDArray[np.float64], name: str, color: str, dash: str = "solid"
) -> None:
    """Add a line, thin and faint, and its moving mean."""
    smooth = moving_mean(line, ceil(len(line) / 20))
    for width, opacity, drawn in ((1, 0.5, line), (2.5, 1.0, smooth)):
        x, y = thin_line(drawn)
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=name,
            showlegend=width > 1,
            opacity=opacity,
            line={"color": color, "width": width, "dash": dash if width > 1 else "solid"},
            hovertemplate="step %{x}: %{y:.4~g}<extra>%{fullData.name}</extra>",
        )


def set_layout(
    figure: go.Figure, title: str, subtitle: str, unit: str, *, logarithmic: bool = False
) -> None:
    """Set titles, axes and a legend below the plot."""
    base(figure, title, subtitle, 340)
    figure.update_layout(showlegend=False)
    if len({trace["name"] for trace in figure.to_dict()["data"]}) > 1:
        legend_below(figure)
    figure.update_xaxes(title="step")
    figure.update_yaxes(title_text=unit)
    if logarithmic:
        figure.update_yaxes(type="log", tickvals=TICKS)
