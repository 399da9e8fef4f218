"""Backends: every backend has the same operations, is selected in one place, and is refused with a
reason."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from oss_kernels import backends

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("numba", reason="numba is not installed")
CPU = torch.device("cpu")


@pytest.mark.parametrize("operation", backends.MODULES["reference"])
def test_an_operation_has_one_signature(operation):
    signatures = {
        name: inspect.signature(
            getattr(import_module(f"oss_kernels.{modules[operation]}"), operation)
        )
        for name, modules in backends.MODULES.items()
    }
    for signature in signatures.values():
        assert list(signature.parameters) == list(signatures["reference"].parameters)
        for name, parameter in signature.parameters.items():
            wanted = signatures["reference"].parameters[name]
            assert (parameter.kind, parameter.default) == (wanted.kind, wanted.default)


def test_every_backend_has_every_operation():
    names = {field for field in backends.Backend.__dataclass_fields__ if field != "name"}
    assert all(modules.keys() == names for modules in backends.MODULES.values())


def test_a_backend_that_cannot_run_has_a_reason():
    with pytest.raises(backends.UnusableBackend, match=r"'triton' .* GPU, and the model is on cpu"):
        backends.choose_backend("triton", CPU)
    with pytest.raises(backends.UnusableBackend, match=r"'cpu' .* the model is on cuda"):
        backends.choose_backend("cpu", torch.device("cuda"))
    with pytest.raises(backends.UnusableBackend, match="not 'fast'"):
        backends.choose_backend("fast", CPU)


def test_auto_selects_the_backend_for_the_device(monkeypatch):
    assert backends.choose_backend("auto", CPU).name == "cpu"
    assert backends.choose_backend("auto", torch.device("cuda")).name == "triton"
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert backends.choose_backend("auto", CPU).name == "reference"
    with pytest.raises(backends.UnusableBackend, match="numba is not installed"):
        backends.choose_backend("cpu", CPU)


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_kernels_that_cannot_be_imported_are_refused_in_one_sentence(asked, monkeypatch):
    """`test_cpu_machine.py` tests a module that really cannot be imported."""

    def fail_to_import(name):
        raise ImportError("Numba needs NumPy 2.3\nor less")

    monkeypatch.setattr(backends, "import_module", fail_to_import)
    with pytest.raises(backends.UnusableBackend) as refused:
        backends.choose_backend(asked, CPU)
    sentence = str(refused.value)
    assert "'cpu' are installed but cannot be imported (Numba needs NumPy 2.3)" in sentence
    assert "\n" not in sentence


def test_the_references_need_neither_triton_nor_numba():
    modules = sorted(set(backends.MODULES["reference"].values()) | {"mxfp4_linear.reference"})
    modules += ["qkv_rope.reference", "unembed.reference", "mxfp4"]
    code = "import sys; sys.modules.update(triton=None, numba=None)\n"
    code += "".join(f"import oss_kernels.{module}\n" for module in modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
