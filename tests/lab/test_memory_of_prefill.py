"""A prefill needs no more memory than the plan, measured as the peak of this process (Linux)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oss_kernels.backends import load_backend

from oss_lab.checkpoint.plan import kv_cache_bytes, prefill_bytes
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import Engines
from oss_lab.engine.read import PREFILL_CHUNK
from oss_lab.engine.request import Request

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
SLACK = 2**25  # bytes that the C library keeps, and code that is compiled


def find_bytes(name: str) -> int:
    line = next(each for each in STATUS.read_text().splitlines() if each.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not CLEAR.exists(), reason="the peak of memory can be reset only on Linux")
@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_prefill_stays_within_its_plan(tiny_config, random_model, name):
    length = 2048
    config = replace(
        tiny_config, hidden_size=1024, intermediate_size=1024, num_experts=8, experts_per_token=4,
        head_dim=64, num_attention_heads=16, sliding_window=128, initial_context_length=length,
    )  # fmt: skip
    engine = Engines(random_model(config), load_backend(name)).main

    def read(count: int) -> None:
        ids = torch.randint(config.vocab_size, (count,), generator=torch.Generator().manual_seed(0))
        Batch(engine).add([Request(tuple(ids.tolist()), max_tokens=1)])

    read(PREFILL_CHUNK)  # compiles, and dequantizes the experts for the reference engine
    CLEAR.write_text("5")  # the peak starts again from here
    before = find_bytes("VmRSS")
    read(length - 1)
    measured = find_bytes("VmHWM") - before
    scratch = prefill_bytes(config, PREFILL_CHUNK, length, is_reference=name == "reference")
    cache = kv_cache_bytes(config, length, dtype="float32", history="window")
    assert measured <= scratch + cache + SLACK
    assert measured > scratch / 8 or name == "cpu"  # otherwise the plan is no estimate
