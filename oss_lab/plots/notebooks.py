"""Run notebooks from top to bottom and write them in one normal form, to keep diffs small.

    python -m oss_lab.plots.notebooks notebooks/*.ipynb

Every plotly output gets a static picture (24 colors), which is what GitHub shows. All metadata
except tags is removed, as are times and widget state; a widget's output keeps its HTML and text. A
cell with the tag `hide-output` is stored with its output folded: JupyterLab shows it on a click, or
when the cell runs. Prints the seconds that the cells took, for the notebook's header. A notebook
that fails, writes to stderr or exceeds a size limit is refused and left unchanged. Needs
the extra `test` (kaleido, pillow) and a Chromium; no other file of oss_lab imports this one.
"""

import argparse
import base64
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import plotly.graph_objects as go
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from oss_lab.errors import LabError
from oss_lab.plots.figure import PLOTLY, render_picture

WIDGET = "application/vnd.jupyter.widget-view+json"
PNG = "image/png"
HTML = "text/html"
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
FOLDED = "hide-output"  # the book folds cells with this tag, too
BLANK = {HTML: ""}
"""The first output of a folded cell. JupyterLab shows the first line of a folded output, which was
often the result to predict.
"""
COLORS = 24
CELL_TIMEOUT = 240  # seconds
FILE_LIMIT = 180 * 1024  # bytes
OUTPUT_LIMIT = 20 * 1024  # characters of one output, without pictures


def rerun(path: Path) -> int:
    """Run, normalize and rewrite one notebook; returns its size in bytes.

    Raises:
        LabError: a cell failed or wrote to stderr, or something is too large.
    """
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path)
    normalize(notebook)
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            check_output(output, f"{path.name}, cell {number}")
    text = nbformat.writes(notebook) + "\n"
    size = len(text.encode())
    if size > FILE_LIMIT:
        raise LabError(f"{path.name} would have {size:,} bytes; the limit is {FILE_LIMIT:,}")
    path.write_text(text, encoding="utf-8")
    return size


def execute(notebook: NotebookNode, path: Path) -> None:
    """Execute in the notebook's folder on the CPU, as nbval does."""
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name=KERNEL["name"],
        store_widget_state=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    with tempfile.TemporaryDirectory() as course:
        env = {"OSS_LAB_DEVICE": "cpu", "TQDM_DISABLE": "1", "OSS_LAB_COURSE": course}
        try:
            client.execute(env=os.environ | env)
        except CellExecutionError as error:
            raise LabError(f"{path.name}: a cell failed: {error.ename}: {error.evalue}") from error


def normalize(notebook: NotebookNode) -> None:
    """Count cells from 1, keep only tags as metadata, join streams, add static pictures."""
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode({"tags": sorted(tags)} if tags else {})
        if FOLDED in (tags or ()):
            cell.metadata["jupyter"] = NotebookNode({"outputs_hidden": True})
        cell.source = cell.source.strip()
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [
                normalize_output(output, count) for output in join_streams(cell.outputs)
            ]
            if FOLDED in (tags or ()) and not is_blank(cell.outputs):
                cell.outputs.insert(0, nbformat.v4.new_output("display_data", BLANK))


def is_blank(outputs: list[NotebookNode]) -> bool:
    """Whether JupyterLab has no line to show of these outputs while they are folded."""
    return not outputs or outputs[0].get("data") == BLANK


def join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighboring pieces of one stream; where the kernel splits them is random."""
    whole: list[NotebookNode] = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            whole.append(output)
    return whole


def normalize_output(output: NotebookNode, count: int) -> NotebookNode:
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        output.metadata = NotebookNode()
        if HTML in output.data:
            output.data.pop(WIDGET, None)  # its model is gone when the file is opened later
        if PLOTLY in output.data:
            output.data[PNG] = base64.b64encode(render_small_png(output.data[PLOTLY])).decode()
    return output


def render_small_png(content: dict[str, Any]) -> bytes:
    """A small PNG of plotly JSON, with few colors and no transparency."""
    from PIL import Image  # not part of `make lab`, whose users write sheets with this module

    figure = go.Figure(data=content["data"], layout=content["layout"])
    shrunk = io.BytesIO()
    with Image.open(io.BytesIO(render_picture(figure))) as image:
        few = image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, kmeans=4)
        few.save(shrunk, "png", optimize=True)
    return shrunk.getvalue()


def check_output(output: NotebookNode, where: str) -> None:
    """Raise LabError for stderr and for an output that is too long."""
    if output.get("name") == "stderr":
        raise LabError(f"{where} writes to stderr: {output.text.strip()[:200]}")
    data = output.get("data", {})
    text = output.get("text", "") + "".join(str(v) for k, v in data.items() if k != PNG)
    if len(text) > OUTPUT_LIMIT:
        raise LabError(
            f"{where}: an output has {len(text):,} characters; the limit is {OUTPUT_LIMIT:,}"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run notebooks again and normalize them in place.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    try:
        for path in parser.parse_args(arguments).notebooks:
            began = time.perf_counter()
            size = rerun(path)
            print(f"{path}: {size:,} bytes, {time.perf_counter() - began:.0f} s")
    except LabError as error:
        print(f"oss_lab.plots.notebooks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
