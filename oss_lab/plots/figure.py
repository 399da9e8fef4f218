"""What a plot function returns: a figure, and one sentence computed from its data.

The sentence is the figure's text: in a terminal, for a screen reader, and for nbval, which compares
it instead of the picture. `table()` has the values as text. In Jupyter a figure is one bundle of
plotly JSON and sentence. Its static picture (`png`, which GitHub and nbconvert show) needs kaleido
and a Chromium. It is made when a notebook is written (`python -m oss_lab.plots.notebooks`), not
each time a cell runs.
"""

import json
import textwrap
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.style import PICTURE_WIDTH
from oss_lab.plots.table import Table, tabulate

PLOTLY = "application/vnd.plotly.v1+json"
JSON_LIMIT = 50_000  # characters; notebooks hold every figure's JSON
LINE = 100  # characters


@dataclass(frozen=True, repr=False)
class Figure:
    """A plotly figure and its sentence.

    Raises:
        LabError: the figure's JSON is longer than JSON_LIMIT.
    """

    plotly: go.Figure
    sentence: str

    def __post_init__(self) -> None:
        size = len(self.plotly.to_json() or "")
        if size > JSON_LIMIT:
            raise LabError(
                f"this figure has {size:,} characters of JSON, above the limit of"
                f" {JSON_LIMIT:,}; give it fewer tokens, layers or heads"
            )

    def __repr__(self) -> str:
        return wrap(self.sentence)

    def json(self) -> dict[str, Any]:
        """Plotly's JSON in the form of Jupyter's renderer; arrays are base64 of small integers."""
        content = json.loads(self.plotly.to_json() or "")
        return content | {"config": {"displayModeBar": False}}

    def png(self) -> bytes:
        """The static picture, PICTURE_WIDTH wide; it looks like the live figure.

        Raises:
            LabError: kaleido or Chromium is missing, or the export failed.
        """
        return render_picture(self.plotly)

    def table(self) -> Table:
        """The values as text, also those that the picture has no room for."""
        return tabulate(self.plotly)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {PLOTLY: self.json(), "text/plain": self.sentence}


@dataclass(frozen=True, repr=False)
class Passage:
    """A text as HTML, and its sentence. All text in the HTML is escaped."""

    html: str
    sentence: str

    def __repr__(self) -> str:
        return wrap(self.sentence)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/html": self.html, "text/plain": self.sentence}


def wrap(sentence: str) -> str:
    """The sentence in lines short enough that a notebook does not break words."""
    return textwrap.fill(sentence, LINE)


def render_picture(figure: go.Figure) -> bytes:
    """PNG bytes of a figure, from kaleido without MathJax; see `Figure.png`."""
    try:
        import kaleido
    except ImportError:
        raise LabError('a static picture needs kaleido: pip install "oss-lab[test]"') from None
    size = {"format": "png", "width": PICTURE_WIDTH, "height": figure.layout["height"]}
    try:
        return kaleido.calc_fig_sync(figure, opts=size, kopts={"mathjax": False})
    except (RuntimeError, ValueError) as error:  # ChromeNotFoundError is a RuntimeError
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise LabError(f"kaleido could not make a static picture: {reason}") from None
