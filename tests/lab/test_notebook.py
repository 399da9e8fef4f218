"""The notebook writer: one normalized form, and a refusal that leaves the file unchanged."""

import copy
import shutil
from pathlib import Path

import pytest

from oss_lab.errors import LabError
from oss_lab.plots.figure import PLOTLY

AUTHORING = "an authoring package (nbclient, nbformat, pillow) is not installed (extra `test`)"
nbformat = pytest.importorskip("nbformat", reason=AUTHORING)
writer = pytest.importorskip("oss_lab.plots.notebooks", reason=AUTHORING)
v4 = nbformat.v4


def with_outputs(*outputs, **metadata):
    """A notebook of one code cell that stores these outputs."""
    cell = v4.new_code_cell("1", outputs=list(outputs), execution_count=7, metadata=metadata)
    return v4.new_notebook(cells=[v4.new_markdown_cell("# A\n"), cell], metadata={"widgets": {}})


def save(path: Path, *sources: str) -> bytes:
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources]), path)
    return path.read_bytes()


def test_normalize_keeps_tags_and_nothing_else_in_metadata():
    result = v4.new_output("execute_result", {"text/plain": "1"}, execution_count=7)
    result.metadata = {"isolated": True}
    notebook = with_outputs(result, tags=["b", "a"], execution={"shell.execute_reply": "now"})
    writer.normalize(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    markdown, code = notebook.cells
    assert markdown.source == "# A"
    assert code.metadata == {"tags": ["a", "b"]}
    assert code.execution_count == code.outputs[0].execution_count == 1
    assert code.outputs[0].metadata == {}
    nbformat.validate(notebook)
    once = copy.deepcopy(notebook)
    writer.normalize(notebook)
    assert notebook == once


def test_a_widget_keeps_the_form_that_needs_no_kernel():
    data = {writer.WIDGET: {"model_id": "1"}, "text/html": "<p>15</p>", "text/plain": "15"}
    notebook = with_outputs(v4.new_output("display_data", data))
    writer.normalize(notebook)
    assert set(notebook.cells[1].outputs[0].data) == {"text/html", "text/plain"}


def test_a_folded_output_does_not_show_its_first_line():
    printed = v4.new_output("stream", name="stdout", text="sum: 3\n")
    notebook = with_outputs(printed, tags=["hide-output"])
    writer.normalize(notebook)
    code = notebook.cells[1]
    assert code.metadata["jupyter"] == {"outputs_hidden": True}
    blank, result = code.outputs
    assert (blank.data, result.text) == ({"text/html": ""}, "sum: 3\n")
    writer.normalize(notebook)
    assert len(code.outputs) == 2


def test_pieces_of_a_stream_are_joined():
    pieces = [("stdout", "a "), ("stdout", "b\n"), ("stderr", "c"), ("stdout", "d")]
    outputs = [v4.new_output("stream", name=name, text=text) for name, text in pieces]
    joined = [(output.name, output.text) for output in writer.join_streams(outputs)]
    assert joined == [("stdout", "a b\n"), ("stderr", "c"), ("stdout", "d")]


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (v4.new_output("stream", name="stderr", text="a warning"), "cell 2 writes to stderr: a w"),
        (v4.new_output("stream", name="stdout", text="x" * 20_481), "20,481 characters"),
        (v4.new_output("display_data", {PLOTLY: {"data": "x" * 20_480}}), "characters; the limit"),
    ],
)
def test_outputs_that_a_notebook_must_not_store_are_refused(output, complaint):
    with pytest.raises(LabError, match=complaint):
        writer.check_output(output, "cell 2")


def test_a_notebook_that_fails_is_not_changed(tmp_path, capsys):
    path = tmp_path / "bad.ipynb"
    before = save(path, "print(1)", "{}['x']")
    assert writer.main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "bad.ipynb: a cell failed: KeyError: 'x'" in capsys.readouterr().err


def test_a_second_run_changes_nothing(tmp_path):
    path = tmp_path / "good.ipynb"
    save(path, "import os\nprint(os.getcwd() == os.path.realpath('.'))", "6 * 7")
    writer.rerun(path)
    first = path.read_bytes()
    assert writer.rerun(path) == len(first)
    assert path.read_bytes() == first
    outputs = [cell.outputs[0] for cell in nbformat.read(path, as_version=4).cells]
    assert outputs[0].text == "True\n"
    assert outputs[1].data == {"text/plain": "42"}


def test_a_figure_gets_a_small_static_picture():
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine, which static pictures are drawn with")
    content = {"data": [{"type": "bar", "y": [1, 3, 2]}], "layout": {"height": 300}}
    png = writer.render_small_png(content)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 10_000
