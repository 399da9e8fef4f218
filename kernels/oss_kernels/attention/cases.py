"""The cases that attention is compiled and timed with."""

from collections.abc import Iterator

import torch

from oss_kernels.attention.kernel import make_launches
from oss_kernels.attention.step import SPLITS, make_step_launches
from oss_kernels.cases import Case, Make, Need, nbytes
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    for seq, keys, window in (
        (1, 1024, None),
        (1, 131_072, None),
        (1, 4096, shapes.window),
        (512, 4096, None),
        (512, 4096, shapes.window),
    ):
        q = make.normal(1, seq, shapes.heads, shapes.head_dim).transpose(1, 2)
        room = make.normal(2, 1, shapes.kv_heads, keys + 256, shapes.head_dim)
        k, v = room[:, :, :, :keys].unbind()
        sinks = make.normal(shapes.heads)
        z = make.empty(1, seq, shapes.heads, shapes.head_dim)
        lse = make.empty(1, shapes.heads, seq, dtype=torch.float32)
        span = keys if window is None else min(keys, seq + window - 1)
        seen = sum(min(keys - seq + i + 1, window or keys) for i in range(seq))
        needs: set[Need] = {"wide loads"}
        if seq > 1:
            needs.add("matrix instructions")
        yield Case(
            f"attention, {seq} of {keys:,} tokens" + (f", window {window}" if window else ""),
            make_launches(q, k, v, sinks, z, lse, window, None),
            bytes=nbytes(q, sinks, z, lse) + 2 * nbytes(k[:, :, :span]),
            flops=4 * seen * shapes.heads * shapes.head_dim,
            needs=frozenset(needs),
        )
    seq = 2048
    q, z = (make.normal(1, seq, shapes.heads, shapes.head_dim) for _ in range(2))
    k, v = make.normal(2, 1, shapes.kv_heads, seq, shapes.head_dim).unbind()
    sinks, lse = make.normal(shapes.heads), make.empty(1, shapes.heads, seq, dtype=torch.float32)
    starts = torch.arange(0, seq, 256, dtype=torch.int32, device=make.device)
    starts = starts.repeat_interleave(256)[None]  # samples of 256 tokens
    yield Case(
        f"attention, {seq // 256} samples of 256 tokens",
        make_launches(q.transpose(1, 2), k, v, sinks, z, lse, None, None, 0, starts),
        bytes=nbytes(q, k, v, sinks, z, lse, starts),
        flops=4 * (seq // 256) * (256 * 257 // 2) * shapes.heads * shapes.head_dim,
        needs=frozenset({"wide loads", "matrix instructions"}),
    )
    for capacity, splits in ((shapes.window, 1), (8192, SPLITS)):
        q, z = (make.normal(1, shapes.heads, shapes.head_dim) for _ in range(2))
        keys, values = (
            make.normal(1, shapes.kv_heads, capacity, shapes.head_dim) for _ in range(2)
        )
        sinks = make.normal(shapes.heads)
        lse = make.empty(1, shapes.heads, dtype=torch.float32)
        lengths = make.integers(capacity, capacity + 1, 1, dtype=torch.int32)
        parts = None
        if splits > 1:
            parts = (
                make.empty(splits, *z.shape, dtype=torch.float32),
                make.empty(splits, *lse.shape, dtype=torch.float32),
            )
        yield Case(
            f"attention of a step, {capacity:,} tokens",
            make_step_launches(q, keys, values, sinks, lengths, z, lse, parts),
            bytes=nbytes(q, sinks, z, lse, keys, values),
            flops=4 * capacity * shapes.heads * shapes.head_dim,
            needs=frozenset({"wide loads", "asynchronous copies"}),
        )
