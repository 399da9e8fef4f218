"""OSS_KERNELS_CPU names the fastest path that the CPU's kernels may use, everywhere in the
library.
"""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.cpu import dequantize, e2m1_layouts, machine
from oss_kernels.cpu.numbers import as_numpy

PATHS = list(machine.NEEDS)
EVERYTHING = frozenset[str]().union(*machine.NEEDS.values())


@pytest.fixture
def force_path(monkeypatch):
    """`force_path(path, has)`: as if imported under OSS_KERNELS_CPU=path on a CPU with the features
    `has`."""
    cached = (
        machine.list_features,
        machine.list_paths,
        machine.has_amx,
        e2m1_layouts.choose_path,
    )

    def force(path: str, has: frozenset[str]) -> None:
        monkeypatch.setattr(machine.llvm, "get_host_cpu_features", lambda: dict.fromkeys(has, True))
        monkeypatch.setenv(machine.VARIABLE, path)
        for function in cached:
            function.cache_clear()

    yield force
    monkeypatch.undo()
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_hides_faster_paths_and_the_features_only_they_need(force_path, monkeypatch, path):
    force_path(path, EVERYTHING | {"amx-bf16", "amx-tile", "avx512vl"})
    assert list(machine.list_paths()) == PATHS[PATHS.index(path) :]
    assert e2m1_layouts.choose_path(torch.bfloat16, 90) == path
    assert machine.has_fast_bfloat16() == (path == "avx512_bf16")
    assert not machine.has_amx()
    ways = []
    for way in ("dequantize_by_group", "dequantize_by_number"):
        monkeypatch.setattr(dequantize, way, lambda way=way: lambda *_: ways.append(way))
    blocks, scales = torch.zeros(1, 2, 16, dtype=torch.uint8), torch.zeros(1, 2, dtype=torch.uint8)
    out = torch.empty(1, 64, dtype=torch.bfloat16)
    dequantize.dequantize(*(as_numpy(each) for each in (blocks, scales, out)))
    assert ways == [f"dequantize_by_{'group' if path.startswith('avx512') else 'number'}"]


def test_without_the_variable_every_path_is_used(force_path):
    force_path("", EVERYTHING | {"amx-bf16"})
    assert list(machine.list_paths()) == PATHS
    assert "amx-bf16" in machine.list_features()


@pytest.mark.parametrize("path", ["avx512", "fast"])
def test_an_unavailable_path_is_refused(force_path, path):
    force_path(path, machine.NEEDS["avx2"])
    with pytest.raises(ImportError) as refused:
        machine.list_features()
    said = f"OSS_KERNELS_CPU is '{path}'; on this machine it must be avx2 or plain"
    assert str(refused.value) == said


def test_the_library_and_the_bench_refuse_it_in_one_sentence():
    code = (
        "import runpy, sys, torch\n"
        "from oss_kernels import backends\n"
        "try:\n"
        "    backends.choose_backend('auto', torch.device('cpu'))\n"
        "except backends.UnusableBackend as error:\n"
        "    print(error)\n"
        "sys.argv = ['bench', '--cpu']\n"
        "runpy.run_module('oss_kernels.bench', run_name='__main__')\n"
    )
    environment = os.environ | {machine.VARIABLE: "fast"}
    command = [sys.executable, "-c", code]
    # If the benchmark were not refused, it would take minutes.
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert (done.returncode, done.stderr.count("\n"), done.stdout.count("\n")) == (1, 1, 1)
    said = "OSS_KERNELS_CPU is 'fast'; on this machine it must be "
    assert f"'cpu' are installed but cannot be imported ({said}" in done.stdout
    assert done.stderr.startswith(f"oss_kernels.bench: {said}")
