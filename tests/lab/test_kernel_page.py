"""The page of kernel results shows the numbers of the results, and other files are refused."""

import json
import sys
from dataclasses import asdict
from typing import Any

import pytest

pytest.importorskip("numba", reason="numba is not installed")
pytest.importorskip("triton", reason="triton is not installed")

from oss_kernels.bench import cpu, gpu
from oss_kernels.bench.timing import Time

from oss_lab.bench import kernel_page
from oss_lab.plots import kernel_speed

ABOUT = {"date": "2030-01-02T03:04:05+00:00"}


def cpu_row(name, share, gigaflops=0.0):
    return asdict(cpu.CpuResult(name, 10.0, 9.0, 12.0, 30.0, share, gigaflops, 3, 0))


def gpu_row(case, model, of_copy, of_matrix):
    time = Time(10.0, 9.0, 12.0, 20)
    return asdict(gpu.GpuResult("router", case, model, time, 1.0, of_copy, 1.0, of_matrix))


CPU = ABOUT | {
    "device": {"name": "A <b>CPU</b>", "threads": 2},
    "reading": cpu_row("reading memory", 1.0),
    "rows": [cpu_row("MXFP4 8 to 8, 1 token", 0.75), cpu_row("bfloat16 8 to 8, 1 token", 0.5)],
}
GPU = ABOUT | {
    "device": {"name": "A GPU"},
    "limits": {"copy": 1e12, "matrix": 1e14},
    "rows": [gpu_row("router", "20b", 0.5, 0.125), gpu_row("router", "120b", 0.25, 0.5)],
}


NO_NAME = json.dumps(CPU).replace('"bfloat16 8 to 8, 1 token"', "null")


def bars_of(found) -> list[Any]:
    """The bars of the figure. plotly's types do not describe them."""
    return list(kernel_speed(found).plotly.select_traces())


def test_bars_are_the_shares_with_the_first_row_on_top():
    (bars,) = bars_of(CPU)
    assert list(bars.x) == [50, 75]
    assert list(bars.y) == ["bfloat16 8 to 8, 1 token", "MXFP4 8 to 8, 1 token"]
    memory, matrix = bars_of(GPU)
    assert list(memory.y) == list(matrix.y) == ["router (120b)", "router (20b)"]
    assert (list(memory.x), list(matrix.x)) == ([25, 50], [50, 12.5])


def test_the_sentence_names_the_kernel_that_is_nearest_to_memory():
    assert "MXFP4 8 to 8, 1 token is fastest" in kernel_speed(CPU).sentence
    assert "router (20b) is fastest, at 50% of the memory's speed" in kernel_speed(GPU).sentence


def test_the_sentence_leaves_out_rows_limited_by_arithmetic():
    many = cpu_row("MXFP4 8 to 8, 128 tokens", 0.9, gigaflops=100.0)
    cpu_found = CPU | {"rows": [many, *CPU["rows"]]}
    limits = "Memory, not arithmetic, limits"
    assert f"{limits} 2 of 3 rows; of these, MXFP4 8 to 8, 1 token is" in (
        kernel_speed(cpu_found).sentence
    )
    gpu_found = GPU | {"rows": [gpu_row("experts", "20b", 0.75, 0.9), *GPU["rows"]]}
    assert f"{limits} 1 of 3 rows; of these, router (20b)" in kernel_speed(gpu_found).sentence
    none = kernel_speed(GPU | {"rows": [gpu_row("experts", "20b", 0.75, 0.9)]})
    assert none.sentence == "None of 1 row is limited by memory rather than arithmetic."


def test_the_axis_names_its_unit_and_includes_the_limit():
    layout = kernel_speed(GPU).plotly.layout
    assert layout.xaxis.title.text == "share of the measured limit, %"
    assert layout.xaxis.range[1] > layout.shapes[0].x0 == 100
    fast = GPU | {"rows": [gpu_row("router", "20b", 1.5, 0.125)]}
    assert kernel_speed(fast).plotly.layout.xaxis.range[1] > 150


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["kernel_page", *map(str, arguments)])
    return kernel_page.main()


def test_a_page_of_several_results_with_names_escaped(monkeypatch, tmp_path):
    for name, found in (("cpu", CPU), ("gpu", GPU)):
        (tmp_path / name).write_text(json.dumps(found))
    assert run(monkeypatch, tmp_path / "cpu", tmp_path / "gpu", tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text()
    assert text.count("<figure>") == 2
    assert "<b>CPU" not in text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": []}', '{"rows": [{"task": "decode"}]}', NO_NAME]
)
def test_other_files_are_refused_in_one_sentence(monkeypatch, tmp_path, capsys, text):
    (tmp_path / "other").write_text(text)
    assert run(monkeypatch, tmp_path / "other", tmp_path / "page.html") == 1
    error = capsys.readouterr().err
    assert "is not a result of" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_a_missing_page_argument_overwrites_no_result(monkeypatch, tmp_path, capsys):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(CPU))
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path / "a.json", tmp_path / "b.json")
    assert ended.value.code == 2
    assert "b.json" in (error := capsys.readouterr().err)
    assert "must be the page to write, an .html file" in error
    assert json.loads((tmp_path / "b.json").read_text()) == CPU
