"""What the kernels' commands say, in a sentence, where they cannot do what they are asked to."""

import subprocess
import sys

import pytest


def run(module: str, *arguments: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """A command in a process of its own, in which some packages are not installed."""
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({without!r}))\n"
        f"sys.argv = ['command', *{arguments!r}]\n"
        f"runpy.run_module({module!r}, run_name='__main__')\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("module", "arguments", "missing"),
    [("oss_kernels.bench", ("--cpu",), "numba"), ("oss_kernels.gate", (), "triton")],
)
def test_a_missing_package_is_named(module, arguments, missing):
    done = run(module, *arguments, without=(missing,))
    assert done.returncode == 1
    assert done.stderr.startswith(f"{module}: {missing} is not installed")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--threads", "--samples"])
@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_counts_are_whole_numbers_of_one_or_more(option, number):
    done = run("oss_kernels.bench", "--cpu", f"{option}={number}")
    assert done.returncode == 2
    assert f"{option}: '{number}' is no whole number of 1 or more" in done.stderr


def test_the_cpus_bench_needs_no_triton():
    pytest.importorskip("numba", reason="numba is not installed")
    code = "import sys; sys.modules['triton'] = None\nimport oss_kernels.bench.cpu"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
