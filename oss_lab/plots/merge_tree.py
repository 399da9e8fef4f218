"""How byte-pair encoding joins the bytes of a piece: a tree, with the bytes at the bottom.

A pair of neighbors is joined if the result is in the vocabulary, the lowest rank first. Each join
is a node with its rank. What is never joined stays a separate token, so there can be several
trees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.pieces import show_bytes
from oss_lab.plots.style import GRAY, INDIGO, MONOSPACE, base, plural
from oss_lab.plots.tokens import plotly_text

ROW = 55  # pixels
LONGEST = 24  # bytes that have room side by side


@dataclass(frozen=True)
class Node:
    """A token, where it is drawn, and the two that it was joined from; a byte has none."""

    token: bytes
    x: float
    y: int
    parts: "tuple[Node, Node] | None" = None


@check_arguments
def merge_tree(piece: bytes, ranks: Mapping[bytes, int]) -> Figure:
    """The joins of one pre-tokenized piece, and a sentence that lists them in order.

    Raises:
        LabError: the piece is empty or too long to draw.
    """
    if not 0 < len(piece) <= LONGEST:
        raise LabError(f"a tree needs 1 to {LONGEST} bytes, got {len(piece)}")
    roots, joins = join_pairs(piece, ranks)
    figure = go.Figure()
    for join in joins:
        add_join(figure, join)
    nodes = [*map(leaf, range(len(piece)), piece), *joins]
    texts = [plotly_text(show_bytes(node.token)) for node in nodes]
    figure.add_scatter(
        x=[node.x for node in nodes],
        y=[node.y for node in nodes],
        mode="text",
        text=[
            f"<b>{text}</b>" + (f"<br>{ranks[node.token]}" if node.parts else "")
            for text, node in zip(texts, nodes, strict=True)
        ],
        textfont={"family": MONOSPACE, "size": 13},
        customdata=[ranks.get(node.token, -1) for node in nodes],
        hovertemplate="%{text}<extra>rank %{customdata}</extra>",
        showlegend=False,
    )
    shown = show_bytes(piece)
    subtitle = "each join has its rank; the lowest rank of all neighboring pairs is joined first"
    top = max(node.y for node in nodes)
    base(figure, plotly_text(f"How “{shown}” is joined"), subtitle, 130 + ROW * (top + 1))
    figure.update_xaxes(visible=False, range=[-0.7, len(piece) - 0.3])
    figure.update_yaxes(visible=False, range=[-0.5, top + 0.6])
    order = ", ".join(f"{show_bytes(each.token)} ({ranks[each.token]})" for each in joins)
    sentence = (
        f"“{shown}”: {plural(len(joins), 'join')} of {plural(len(piece), 'byte')} give"
        f" {plural(len(roots), 'token')}{': ' * bool(joins)}{order}."
    )
    return Figure(figure, sentence)


def leaf(position: int, byte: int) -> Node:
    return Node(bytes([byte]), position, 0)


def join_pairs(piece: bytes, ranks: Mapping[bytes, int]) -> tuple[list[Node], list[Node]]:
    """What is left at the end, from left to right, and every join in order."""
    nodes, joins = list(map(leaf, range(len(piece)), piece)), list[Node]()
    while True:
        pairs = [(a, b) for a, b in pairwise(nodes) if a.token + b.token in ranks]
        if not pairs:
            return nodes, joins
        a, b = min(pairs, key=lambda pair: ranks[pair[0].token + pair[1].token])
        joined = Node(a.token + b.token, (a.x + b.x) / 2, max(a.y, b.y) + 1, (a, b))
        place = nodes.index(a)
        nodes[place : place + 2] = [joined]
        joins.append(joined)


def add_join(figure: go.Figure, node: Node) -> None:
    """Lines from the joined token down to its two parts."""
    assert node.parts is not None
    for part in node.parts:
        figure.add_scatter(
            x=[part.x, node.x],
            y=[part.y + (0.4 if part.parts else 0.2), node.y - 0.35],
            mode="lines",
            line={"color": GRAY if part.parts is None else INDIGO, "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        )
