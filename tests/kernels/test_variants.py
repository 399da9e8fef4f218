"""Kernels are compiled for a few sizes of tiles, and not again while a text grows.

Triton compiles a kernel again for an integer that is 1 or a multiple of 16, unless the kernel says
that it does not matter.
"""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed")

# A separate process, because the interpreter knows no variants.
COUNT = """
import torch
from oss_kernels.attention.kernel import make_launches
from oss_kernels.cases import Make
from oss_kernels.gate.build import find_variant
from oss_kernels.mxfp4_linear.prefill import launch as launch_tiles
from oss_kernels.router.kernel import launch as launch_router

make, found = Make(), {}

def add(launch):
    variant = repr(find_variant(launch, "cuda"))
    found.setdefault(launch.kernel.__name__, set()).add(variant)

room = make.normal(2, 1, 8, 8192 + 256, 64)
sinks = make.normal(64)
for keys in (1, 2, 4, 8, 15, 16, 17, 31, 32, 33, 100, 127, 128, 129, 512, 513, 4000, 4097, 8192):
    k, v = room[:, :, :, :keys].unbind()
    for seq, window in ((1, 128), (1, None), (min(512, keys), 128), (min(512, keys), None)):
        q = make.normal(1, seq, 64, 64).transpose(1, 2)
        z = make.empty(1, seq, 64, 64)
        lse = make.empty(1, 64, seq, dtype=torch.float32)
        for each in make_launches(q, k, v, sinks, z, lse, window, None):
            add(each)
blocks, scales = make.mxfp4(64, columns=2880)
weight, bias = make.normal(32, 2880), make.normal(32)
for tokens in (129, 130, 144, 145, 511, 512):
    x = make.normal(tokens, 2880)
    add(launch_tiles(x, blocks, scales, None, make.empty(tokens, 64)))
    ids = make.empty(tokens, 4, dtype=torch.int32)
    weights, logits = (make.empty(tokens, n, dtype=torch.float32) for n in (4, 32))
    add(launch_router(x, weight, bias, ids, weights, logits))
for name, variants in sorted(found.items()):
    print(name, len(variants))
"""


@pytest.mark.slow  # for its imports
def test_contexts_from_1_to_8192_tokens_need_no_further_compilation():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, env=environment, check=True
    )
    counts = {name: int(count) for name, count in map(str.split, done.stdout.splitlines())}
    # One per size of a tile of queries, a power of two: 1 to 2, 4 and 8 queries, 16 to 128 queries.
    # From 129 keys on, `split_kernel` also writes float32 parts for `merge_kernel`.
    # `mxfp4_linear` has a `prefill_kernel` too.
    tiles = {"split_kernel": 3 + 1, "prefill_kernel": 4 + 1}
    assert counts == tiles | {"merge_kernel": 1, "router_kernel": 1}
