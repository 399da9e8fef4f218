"""Runs notebooks from top to bottom and writes them back in one form, so that diffs mean something.

    python -m oss_lab.plots.notebooks notebooks/*.ipynb

Every plotly output gets a static picture (48 colors), which is what GitHub shows; metadata other
than tags, times and widget state go; a widget's output keeps its HTML and text. A notebook that
fails, writes to stderr or grows beyond the limits is refused and left as it was. Needs the extra
`test` (kaleido, pillow) and a Chromium; nothing else in oss_lab imports this file.
"""

import argparse
import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import plotly.graph_objects as go
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

from oss_lab.errors import LabError
from oss_lab.plots.figure import PLOTLY, picture

WIDGET = "application/vnd.jupyter.widget-view+json"
PNG = "image/png"
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
COLORS = 48
CELL_TIMEOUT = 240  # seconds
FILE_LIMIT = 150 * 1024  # bytes
OUTPUT_LIMIT = 20 * 1024  # characters of one output, pictures aside


def rerun(path: Path) -> int:
    """Run, normalize and rewrite one notebook; returns its size in bytes.

    Raises:
        LabError: a cell failed or wrote to stderr, or something is too large.
    """
    notebook = nbformat.read(path, as_version=4)
    run(notebook, path)
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


def run(notebook: NotebookNode, path: Path) -> None:
    """Execute in the notebook's folder, on the CPU, as nbval will."""
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name=KERNEL["name"],
        store_widget_state=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    try:
        client.execute(env=os.environ | {"OSS_LAB_DEVICE": "cpu", "TQDM_DISABLE": "1"})
    except CellExecutionError as error:
        raise LabError(f"{path.name}: a cell failed: {error.ename}: {error.evalue}") from error


def normalize(notebook: NotebookNode) -> None:
    """Counts 1, 2, 3 ..., tags alone in metadata, whole streams, one static picture a figure."""
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode({"tags": sorted(tags)} if tags else {})
        cell.source = cell.source.strip()
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [normalized(output, count) for output in joined(cell.outputs)]


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Neighboring pieces of one stream as one output; where they were cut is chance."""
    whole: list[NotebookNode] = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            whole.append(output)
    return whole


def normalized(output: NotebookNode, count: int) -> NotebookNode:
    if output.output_type == "execute_result":
        output.execution_count = count
    if "data" in output:
        output.metadata = NotebookNode()
        if "text/html" in output.data:
            output.data.pop(WIDGET, None)  # its model is gone when the file is opened again
        if PLOTLY in output.data:
            output.data[PNG] = base64.b64encode(still(output.data[PLOTLY])).decode()
    return output


def still(content: dict[str, Any]) -> bytes:
    """A small PNG of plotly JSON: few colors, no transparency."""
    figure = go.Figure(data=content["data"], layout=content["layout"])
    shrunk = io.BytesIO()
    with Image.open(io.BytesIO(picture(figure))) as image:
        few = image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE)
        few.save(shrunk, "png", optimize=True)
    return shrunk.getvalue()


def check_output(output: NotebookNode, where: str) -> None:
    """Raise LabError for stderr and for an output that is too long."""
    if output.get("name") == "stderr":
        raise LabError(f"{where} writes to stderr: {output.text.strip()[:200]}")
    data = output.get("data", {})
    text = output.get("text", "") + "".join(str(v) for k, v in data.items() if k != PNG)
    if len(text) > OUTPUT_LIMIT:
        raise LabError(f"{where}: an output of {len(text):,} characters, above {OUTPUT_LIMIT:,}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Re-run and normalize notebooks in place.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    try:
        for path in parser.parse_args(arguments).notebooks:
            print(f"{path}: {rerun(path):,} bytes")
    except LabError as error:
        print(f"oss_lab.plots.notebooks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
