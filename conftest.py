"""Makes `pytest --nbval` right without further flags, from any folder.

What a notebook stores is compared, except figures (their one-sentence summaries are compared
instead), HTML and stderr; `tests/lab/test_notebooks.py` keeps stored stderr out and counts how many
cells are compared. Kernels inherit the environment set here: no GPU, so that outputs are the same
on every machine, two threads, no downloads.
"""

import os
from pathlib import Path

import pytest

NOT_COMPARED = ("application/vnd.plotly.v1+json", "text/html", "image/svg+xml", "stderr")
KERNEL_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
}
NBVAL_DEFAULT_TIMEOUT = 2000
CELL_TIMEOUT = 120  # seconds


def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if not (getattr(option, "nbval", False) or getattr(option, "nbval_lax", False)):
        return
    os.environ.update(KERNEL_ENVIRONMENT)
    if not option.nbval_kernel_name:
        option.nbval_current_env = True
    if option.nbval_sanitize_with is None:
        option.nbval_sanitize_with = str(Path(__file__).with_name("sanitize.cfg"))
    if option.nbval_cell_timeout == NBVAL_DEFAULT_TIMEOUT:
        option.nbval_cell_timeout = CELL_TIMEOUT


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):  # a notebook that nbval collects
        collector.skip_compare += NOT_COMPARED  # pyright: ignore[reportAttributeAccessIssue]
