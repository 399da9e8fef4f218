"""The README's table of CPU timings is the newest committed result."""

import json
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.bench import cpu

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
RESULTS = sorted((KERNELS / "benchmarks" / "results").glob("cpu-*.json"))


def test_the_readme_has_the_newest_cpu_result():
    if not RESULTS:
        pytest.skip("no CPU result is committed in kernels/benchmarks/results")
    found = json.loads(RESULTS[-1].read_text())
    readme = (KERNELS / "README.md").read_text(encoding="utf-8")
    assert cpu.format_table(found) in readme
    assert found["device"]["name"] in readme
    assert RESULTS[-1].name in readme
