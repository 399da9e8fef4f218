"""Which kernels a model is loaded with: the default, the environment variable and the argument."""

import pytest
import torch

from oss_lab.checkpoint import plan
from oss_lab.engine.choice import choose_kernels
from oss_lab.errors import LabError
from oss_lab.lab import load

FOR_A_CPU = {"device": "cpu", "verbose": False}


@pytest.fixture(autouse=True)
def undecided(monkeypatch):
    monkeypatch.delenv("OSS_LAB_KERNELS", raising=False)


def test_a_small_model_is_computed_by_the_reference():
    engines = load("nano", **FOR_A_CPU).engines
    assert (engines.kernels, engines.main.name) == (None, "reference")


def test_a_large_model_uses_the_kernels_for_its_device_and_reports_them(monkeypatch, capsys):
    pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setattr(plan, "SMALL", 0)
    engines = load("nano", device="cpu").engines
    assert (engines.main.name, engines.is_auto) == ("cpu", True)
    assert "nano on cpu, cpu kernels, or the reference model if needed" in capsys.readouterr().err


def test_the_environment_overrides_the_default_and_the_caller_overrides_both(monkeypatch, capsys):
    pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setenv("OSS_LAB_KERNELS", "cpu")
    engines = load("nano", device="cpu").engines
    assert (engines.main.name, engines.is_auto) == ("cpu", False)
    assert "nano on cpu, cpu kernels: " in capsys.readouterr().err
    assert load("nano", kernels="reference", **FOR_A_CPU).engines.kernels is None


def test_the_engines_share_one_set_of_weights():
    pytest.importorskip("numba", reason="numba is not installed")
    loaded = load("nano", kernels="auto", **FOR_A_CPU)
    engines = loaded.engines
    assert engines.kernels is not None
    assert loaded.model is engines.reference.model is engines.kernels.model


@pytest.mark.parametrize(("kernels", "is_auto"), [("auto", True), ("cpu", False)])
def test_only_auto_falls_back_to_the_reference_and_the_result_has_the_reason(kernels, is_auto):
    pytest.importorskip("numba", reason="numba is not installed")
    loaded = load("nano", kernels=kernels, **FOR_A_CPU)
    plain = loaded.trace([1, 2, 3], ["moe.margin"]).origin
    assert (plain.kernels, plain.reason) == ("cpu", None)
    if is_auto:
        inside = loaded.trace([1, 2, 3], ["moe.margin", "moe.act"]).origin
        reason = "moe.act: the expert kernel never stores it"
        assert (inside.kernels, inside.reason) == ("reference", reason)
    else:
        with pytest.raises(LabError, match=r"cpu kernels cannot serve .*\(moe\.act: the expert"):
            loaded.trace([1, 2, 3], ["moe.margin", "moe.act"])


@pytest.mark.parametrize("asked", ["fast", "triton"])
def test_kernels_that_cannot_run_are_refused_in_one_sentence(asked):
    with pytest.raises(LabError, match=f"kernels.*{asked}|{asked}.*kernels") as refused:
        choose_kernels(asked, torch.device("cpu"))
    assert "\n" not in str(refused.value)
