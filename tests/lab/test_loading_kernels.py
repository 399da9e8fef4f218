"""Which kernels a model is loaded with, when nothing, the environment or the caller says so."""

import pytest
import torch

from oss_lab import lab
from oss_lab.engine.kernel_model import KernelTransformer
from oss_lab.engine.loading import chosen_kernels
from oss_lab.errors import LabError

FOR_A_CPU = {"device": "cpu", "verbose": False}


@pytest.fixture(autouse=True)
def undecided(monkeypatch):
    monkeypatch.delenv("OSS_LAB_KERNELS", raising=False)


def test_a_small_model_is_spelt_out():
    assert not isinstance(lab.load("nano", **FOR_A_CPU).model, KernelTransformer)


def test_a_large_model_takes_what_is_made_for_the_device_and_says_so(monkeypatch, capsys):
    pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setattr(lab, "SMALL", 0)
    model = lab.load("nano", device="cpu").model
    assert isinstance(model, KernelTransformer)
    assert model.kernels.name == "cpu"
    assert "nano on cpu, cpu kernels" in capsys.readouterr().err


def test_the_environment_decides_and_the_caller_above_it(monkeypatch):
    pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setenv("OSS_LAB_KERNELS", "cpu")
    assert isinstance(lab.load("nano", **FOR_A_CPU).model, KernelTransformer)
    spelt_out = lab.load("nano", kernels="reference", **FOR_A_CPU).model
    assert not isinstance(spelt_out, KernelTransformer)


@pytest.mark.parametrize("asked", ["fast", "triton"])
def test_kernels_that_cannot_run_are_refused_in_one_sentence(asked):
    with pytest.raises(LabError, match=f"kernels.*{asked}|{asked}.*kernels") as refused:
        chosen_kernels(asked, torch.device("cpu"))
    assert "\n" not in str(refused.value)
