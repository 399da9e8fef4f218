"""Figures on one web page that needs no network: plotly is included, sentences are captions, tables
have the values."""

import html
from collections.abc import Sequence

from oss_lab.checkpoint.fields import make_printable
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import PICTURE_WIDTH

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{refresh}<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }}
figure {{ margin: 2em 0 }}
figure div {{ overflow-x: auto }}
.plotly-graph-div {{ min-width: {width}px }}
td {{ white-space: nowrap }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{figures}
</main>
</body>
</html>
"""


def render_page(figures: Sequence[Figure], title: str, refresh: int | None = None) -> str:
    """HTML with plotly in its first figure.

    Args:
        refresh: seconds after which a browser reads the page again; None for never.
    """
    parts = []
    for n, figure in enumerate(figures):
        drawn = figure.plotly.to_html(
            full_html=False, include_plotlyjs=n == 0, config={"displaylogo": False}
        )
        sentence = html.escape(figure.sentence)
        values = f"<details><summary>Values</summary>{figure.table().html}</details>"
        parts.append(f"<figure>\n{drawn}\n<figcaption>{sentence}</figcaption>\n{values}\n</figure>")
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n'
    return PAGE.format(
        title=html.escape(make_printable(title)),
        refresh=again,
        width=PICTURE_WIDTH,
        figures="\n".join(parts),
    )
