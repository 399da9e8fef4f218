"""Makes `pytest --nbval` work without further flags, from any folder.

Tests run in parallel processes with one math thread each; the tests of one file share a process.
Slow and browser tests are deselected unless -m selects them.

The stored outputs of notebooks are compared, except HTML, stderr and figures; a figure's
one-sentence summary is compared instead. `tests/lab/test_notebooks.py` refuses stored stderr and
counts how many cells are compared. Notebook kernels do not see a GPU, so outputs are the same on
every machine. The run fails if a notebook took more than twice the minutes that its header states.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch and numpy are imported

collect_ignore = ["notebooks/book"]  # the sources of the book, and what `make book` builds
NOT_COMPARED = ("application/vnd.plotly.v1+json", "text/html", "image/svg+xml", "stderr")
KERNEL_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
    "TRITON_INTERPRET": "0",  # tests/kernels sets it for this process
}
NBVAL_DEFAULT_TIMEOUT = 2000
CELL_TIMEOUT = 300  # seconds; the longest cell takes a quarter of it on a busy machine
MACHINE_MINUTES = re.compile(r"\| \d+ minutes \| (?:under )?(\d+) minutes? \|")
LEFT_OUT = {
    "slow": "`make test-slow` runs them",
    "browser": "they need Chromium, and `make test` runs them",
}


def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if not (getattr(option, "nbval", False) or getattr(option, "nbval_lax", False)):
        return
    # Notebooks must not see, or change, what a learner did on this machine.
    course = tempfile.TemporaryDirectory(prefix="course-")
    config.add_cleanup(course.cleanup)
    KERNEL_ENVIRONMENT["OSS_LAB_COURSE"] = course.name
    if not option.nbval_kernel_name:
        option.nbval_current_env = True
    if option.nbval_sanitize_with is None:
        option.nbval_sanitize_with = str(Path(__file__).with_name("sanitize.cfg"))
    if option.nbval_cell_timeout == NBVAL_DEFAULT_TIMEOUT:
        option.nbval_cell_timeout = CELL_TIMEOUT


def pytest_report_header(config: pytest.Config) -> list[str]:
    if config.option.markexpr:
        return []
    return [f"{mark} tests are deselected: {reason}" for mark, reason in LEFT_OUT.items()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr:
        return
    left_out = [item for item in items if any(map(item.get_closest_marker, LEFT_OUT))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):  # a notebook that nbval collects
        collector.skip_compare += NOT_COMPARED  # pyright: ignore[reportAttributeAccessIssue]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Set the environment that a notebook's kernel inherits when it starts here."""
    if not hasattr(item.parent, "skip_compare"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KERNEL_ENVIRONMENT.items():
            patch.setenv(name, value)
        return (yield)


seconds_taken: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    path = report.nodeid.partition("::")[0]
    if path.endswith(".ipynb"):
        seconds_taken[path] += report.duration  # pyright: ignore[reportArgumentType]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for each notebook that took over twice the time that its header states."""
    if hasattr(session.config, "workerinput"):
        return  # the process that started this one sees the reports of all
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    for path, seconds in seconds_taken.items():
        stated = MACHINE_MINUTES.search((session.config.rootpath / path).read_text("utf-8"))
        if stated and seconds > 120 * int(stated[1]):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            if terminal:
                terminal.write_line(
                    f"{path} took {seconds:.0f} s, over twice the {stated[1]} min of its header",
                    red=True,
                )
