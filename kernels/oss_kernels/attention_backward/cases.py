"""The cases that attention's gradients are compiled and timed with."""

from collections.abc import Iterator

import torch

from oss_kernels.attention_backward.kernel import make_launches
from oss_kernels.cases import Case, Make, nbytes
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    seq = 2048
    for window in (None, shapes.window):
        q, dz, dq = (make.normal(1, shapes.heads, seq, shapes.head_dim) for _ in range(3))
        k, v, dk, dv = (make.normal(1, shapes.kv_heads, seq, shapes.head_dim) for _ in range(4))
        lse, mean = (make.normal(1, shapes.heads, seq, dtype=torch.float32) for _ in range(2))
        reach = window or seq
        query = torch.arange(seq, dtype=torch.int32, device=make.device)[None]
        first, last = (query - reach + 1).clamp(min=0), (query + reach - 1).clamp(max=seq - 1)
        pairs = sum(min(i + 1, reach) for i in range(seq))
        queries, keys = make_launches(q, k, v, dz, lse, mean, first, last, dq, dk, dv)
        given = (q, k, v, dz, lse, mean, first)
        product = 2 * pairs * shapes.heads * shapes.head_dim  # FLOP
        name = f"{seq:,} tokens" + (f", window {window}" if window else "")
        for what, launch, written, count in (
            ("dq", queries, (dq,), 3),  # scores, dp and dq
            ("dk and dv", keys, (last, dk, dv), 4),  # scores, dp, dk and dv
        ):
            yield Case(
                f"attention_backward, {what} of {name}",
                (launch,),
                bytes=nbytes(*given, *written),
                flops=count * product,
                needs=frozenset({"wide loads", "matrix instructions"}),
            )
