"""A stored notebook, ready for a page of the book.

A picture gets its sentence as alternative text, and as a caption unless the cell prints it. The
output of a view becomes a live view around its stored copy; a copy that cannot become live says so.
The output of a cell that calls `reveal` is folded until the reader has made a guess. A cell that
prints columns gets the tag `columns`, with which they stay aligned in a narrow window.
"""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

from oss_widgets.book.live_cells import CellReader, NotLiveError
from oss_widgets.book.live_view import LiveView

PNG, HTML, TEXT = "image/png", "text/html", "text/plain"
REVEAL = re.compile(r"^(?:\w+\.)*reveal\(", re.MULTILINE)  # of `oss_lab.course.predictions`
STORED = "oss-stored"  # the class of a view's stored copy
COPY = "<p><em>A stored copy. In the notebook, this view is live.</em></p>"
ALIGNED = re.compile(r"^ *\S+.*? {2,}\S.* {2,}\S", re.MULTILINE)  # a row of three columns


def prepare_notebook(notebook: Any) -> Iterator[str]:
    """Change a notebook (nbformat 4) in place; one line for each cell with views."""
    reader, number = CellReader(), 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        number += 1
        stored = [output for output in cell.outputs if STORED in get_html(output)]
        if not stored:
            reader.skip(cell.source)
        else:
            try:
                views = reader.read(cell.source)
                if len(views) != len(stored):
                    raise NotLiveError(f"it has {len(stored)} copies of {len(views)} views")
                for view, output in zip(views, stored, strict=True):
                    make_live(view, output)
                yield f"code cell {number}: live {', '.join(view.view for view in views)}"
            except NotLiveError as reason:
                stored[0].data[HTML] = COPY + get_html(stored[0])
                yield f"code cell {number}: stored copy, since {reason}"
            cell.outputs = [output for output in cell.outputs if not is_announcement(output)]
        printed = "".join(output.get("text", "") for output in cell.outputs)
        cell.outputs = [add_text(output, printed) for output in cell.outputs]
        tags = {*cell.metadata.get("tags", ())}
        if REVEAL.search(cell.source):
            tags.add("hide-output")
        if len(ALIGNED.findall(printed)) > 1:
            tags.add("columns")
        if tags:
            cell.metadata["tags"] = sorted(tags)


def get_html(output: Any) -> str:
    return output.get("data", {}).get(HTML, "")


def is_announcement(output: Any) -> bool:
    """Whether it is the empty place of a widget, which a copy follows."""
    return any("widget-view" in key for key in output.get("data", {})) and not get_html(output)


def make_live(view: LiveView, output: Any) -> None:
    """Put the element of a view around its stored copy."""
    output.data = {HTML: f"{view.open_tag()}{get_html(output)}</div>"}


def add_text(output: Any, printed: str) -> Any:
    """A picture as HTML with its sentence; another output unchanged."""
    data = output.get("data", {})
    if PNG not in data:
        return output
    sentence, picture = data[TEXT], data[PNG].replace("\n", "")
    image = f'<img src="data:{PNG};base64,{picture}" alt="{escape(sentence)}">'
    is_printed = " ".join(sentence.split()) in " ".join(printed.split())
    caption = "" if is_printed else f"<figcaption>{escape(sentence)}</figcaption>"
    output.data = {HTML: f'<figure class="oss-picture"><div>{image}</div>{caption}</figure>'}
    return output
