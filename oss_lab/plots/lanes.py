"""A conversation as one strip of tokens, with a lane for each role and each channel.

Tokens go from left to right in the order in which the model reads them. A bar is a run of tokens of
one message: its header and special tokens (thin), or its content (thick, in the channel's color).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import plotly.graph_objects as go

from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import (
    APART,
    CHANNELS,
    GRAY,
    INK,
    ChannelStyle,
    base,
    plural,
    require_tokens,
)
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import TokenLabel

ROW = 34  # pixels
PROMPT = ChannelStyle("rgb(221, 204, 119)", "/")  # messages that the model did not write


@dataclass(frozen=True)
class Run:
    """Adjacent tokens of one message, all content or all format, at `start` of the strip."""

    lane: str
    message: int
    is_content: bool
    start: int
    tokens: tuple[TokenLabel, ...]

    @property
    def text(self) -> str:
        return make_visible("".join(token.text for token in self.tokens))


@check_arguments
def lanes(tokens: Sequence[TokenLabel]) -> Figure:
    """The strip, and a sentence with the messages and the number of tokens of each content.

    Raises:
        LabError: there are no tokens.
    """
    require_tokens(len(tokens))
    runs = find_runs(tokens)
    names = list(dict.fromkeys(run.lane for run in runs))
    figure = go.Figure()
    add_bars(figure, [run for run in runs if not run.is_content], "format", 0.25)
    for name in names:
        found = [run for run in runs if run.is_content and run.lane == name]
        add_bars(figure, found, name, 0.7)
    subtitle = "thick: content, with its number of tokens; thin: headers and special tokens"
    base(figure, "One stream of tokens", subtitle, 140 + ROW * len(names))
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title="token", range=[0, 1.05 * len(tokens)])
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=names,
        autorange="reversed",
        showgrid=True,
        ticklabelstandoff=APART,
    )
    return Figure(figure, describe(tokens, runs))


def add_bars(figure: go.Figure, runs: Sequence[Run], name: str, width: float) -> None:
    style = CHANNELS.get(name, PROMPT)
    figure.add_bar(
        x=[len(run.tokens) for run in runs],
        y=[run.lane for run in runs],
        base=[run.start for run in runs],
        orientation="h",
        width=width,
        name=name,
        marker={
            "color": style.color,
            "line": {"color": GRAY, "width": 1},
            "pattern": {"shape": style.pattern, "fillmode": "overlay", "fgcolor": GRAY},
        },
        text=[f"\u2002{len(run.tokens)}" if run.is_content else "" for run in runs],
        textposition="outside",
        textfont={"color": INK},
        cliponaxis=False,
        customdata=[plotly_text(run.text) for run in runs],
        hovertemplate="from token %{base}: %{x} tokens<extra>%{customdata}</extra>",
        showlegend=False,
    )


def find_runs(tokens: Sequence[TokenLabel]) -> list[Run]:
    def key(token: TokenLabel) -> tuple[str, int, bool]:
        return find_lane(token), token.message, token.part == "content"

    runs, start = [], 0
    for found, group in groupby(tokens, key=key):
        run = Run(*found, start, tuple(group))
        runs.append(run)
        start += len(run.tokens)
    return runs


def find_lane(token: TokenLabel) -> str:
    """The channel of a message of the assistant; otherwise the role."""
    if token.role == "assistant" and token.channel:
        return token.channel
    return token.role or "between messages"


def describe(tokens: Sequence[TokenLabel], runs: Sequence[Run]) -> str:
    contents = [run for run in runs if run.is_content]
    listed = ", ".join(f"{run.lane} {len(run.tokens)}" for run in contents)
    inside = sum(len(run.tokens) for run in contents)
    return (
        f"{plural(len(tokens), 'token')}, of which {len(tokens) - inside} are headers and special"
        f" tokens; tokens of content, in order: {listed or 'none'}."
    )
