"""The GPU benchmark of whole steps runs at a tiny size; the times are made up without a GPU."""

import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
from oss_kernels.bench import gpu, step
from oss_kernels.bench.limits import Limits
from oss_kernels.bench.timing import Time
from oss_kernels.cases import Make
from oss_kernels.device_step.plan import DevicePlan
from oss_kernels.shapes import Shapes

TINY = Shapes(
    "tiny", layers=2, experts=5, slots=2, hidden=32, width=32, heads=2, kv_heads=1, head_dim=16,
    window=5, vocab=70,
)  # fmt: skip
BEST = Limits(copy=1e12, matrix=1e14)


@pytest.fixture
def run_each_once(monkeypatch):
    """Every timed call runs once and takes a millisecond. A plan is captured by doing nothing."""

    def run(step):
        step()
        return Time(1000.0, 1000.0, 1000.0, 1)

    def run_all(calls):
        for call in calls:
            call()
        return Time(1000.0, 1000.0, 1000.0, 1)

    monkeypatch.setattr(step, "time_steps", run)
    monkeypatch.setattr(step, "time_calls", run_all)
    monkeypatch.setattr(DevicePlan, "capture", lambda plan: None)
    for name, value in (("CONTEXT", 3), ("CAPACITY", 40), ("PROMPT", 6)):
        monkeypatch.setattr(gpu, name, value)


class WideMake(Make):
    """float32 instead of bfloat16, which Triton's interpreter rounds differently."""

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return super().normal(*shape, dtype=dtype)


@pytest.mark.slow
def test_whole_steps_shares_and_prefill_are_measured(run_each_once, device, capsys):
    result = gpu.measure_model(TINY, BEST, WideMake(device))
    json.dumps(result)
    names = [each["name"] for each in result["steps"]]
    assert names[:2] == ["step, graph off, recording off", "step, graph on, recording off"]
    assert len(names) == 5
    assert names[-1] == "prefill of 6"
    assert result["steps"][0]["tokens_per_second"] == 1000
    assert result["steps"][-1]["tokens_per_second"] == 6000
    assert result["shares"]["gate_up_kernel"] == 2000  # two layers
    assert "gate_up_kernel: 2000 us of a step" in capsys.readouterr().out


@pytest.mark.slow
def test_the_prefill_continues_as_the_plan_decodes(device):
    """The last logits of a prompt, read at once and token by token."""
    weights = step.make_weights(TINY, WideMake(device), 40)
    ids = torch.tensor([4, 60, 9, 33, 4, 17], device=device)  # one more than the window
    wanted = step.prefill(weights, ids)
    plan = DevicePlan(weights, splits=2)
    for id in ids:
        plan.buffers.cursor.tokens.fill_(int(id))
        plan.step()
    scale = float(wanted.abs().max())
    torch.testing.assert_close(plan.buffers.sampled.logits, wanted, rtol=0, atol=1e-5 * scale)


def test_the_bytes_of_a_step_are_counted_once(device):
    weights = step.make_weights(replace(TINY, layers=1), Make("meta"), 40)
    dense = 70 * 32 + 32 + 2 * 32 + 64 * 32 + 64 + 2 + 32 * 32 + 32 + 5 * 32 + 5
    packed = 2 * (64 * 17 + 32 * 17 + 2 * (64 + 32))  # two experts
    keys = 2 * 16 * min(9, TINY.window)
    assert weights.count_bytes(1, 9) == 2 * (dense + keys) + packed
