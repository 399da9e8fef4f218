"""How many tokens one forward pass of a prompt reads."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oss_lab.config import GPT_OSS_NANO
from oss_lab.engine.cache import KVCache
from oss_lab.engine.kernels import KernelEngine
from oss_lab.engine.read import prefill

ROW: Any = SimpleNamespace(request=SimpleNamespace(selection=None), needs_hooks=False)


class CountingEngine(KernelEngine):
    """Computes nothing, and keeps the length of each chunk."""

    def __init__(self, name: str) -> None:
        self.name, self.lengths = name, list[int]()

    def forward(self, tokens: Any, past: Any = None, *, last: Any = None, hooks: Any = None):
        self.lengths.append(tokens.shape[1])
        past.advance(tokens.shape[1])
        return tokens.new_zeros(len(tokens), last, 8)


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("cpu", 1, [512, 512, 476]),
        ("triton", 1, [1500]),
        ("triton", 4, [1024, 476]),
        ("triton", 64, [512, 512, 476]),
    ],
)
def test_a_gpu_reads_more_tokens_at_once_than_a_cpu(name, rows, expected):
    engine: Any = CountingEngine(name)
    tokens = torch.zeros(rows, 1500, dtype=torch.int64)
    list(prefill(engine, [ROW] * rows, tokens, KVCache(GPT_OSS_NANO, rows)))
    assert engine.lengths == expected
