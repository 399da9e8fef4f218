"""The kernels' commands print one sentence when they cannot do what the user requests."""

import subprocess
import sys

import pytest
from oss_kernels.bench import __main__ as bench


def run(code: str) -> subprocess.CompletedProcess:
    """Run a command in a separate process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_the_gate_names_a_missing_package():
    done = run(
        "import runpy, sys; sys.modules['triton'] = None\n"
        "runpy.run_module('oss_kernels.gate', run_name='__main__')\n"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("oss_kernels.gate: triton is not installed")
    assert done.stderr.count("\n") == 1


def test_the_bench_names_a_missing_package(monkeypatch):
    """Its exit status and its one line are tested in `test_cpu_machine.py`."""
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["bench", "--cpu"])
    with pytest.raises(SystemExit, match=r"^oss_kernels\.bench: numba is not installed"):
        bench.main()


@pytest.mark.parametrize("option", ["--threads", "--samples"])
@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_counts_are_positive_integers(monkeypatch, capsys, option, number):
    # A number that is accepted ends the command here.
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["bench", "--cpu", f"{option}={number}"])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 2
    expected = f"{option}: expected a whole number of 1 or more, got '{number}'"
    assert expected in capsys.readouterr().err


def test_the_cpus_bench_needs_no_triton():
    pytest.importorskip("numba", reason="numba is not installed")
    done = run("import sys; sys.modules['triton'] = None\nimport oss_kernels.bench.cpu")
    assert done.returncode == 0, done.stderr
