"""Times three ways to decode MXFP4 in a matrix-vector product: one token, 20b's sizes.

`words` is the one that `mxfp4_linear` uses. `bytes` is the simplest: each byte has two codes, which
are decoded and scaled separately. `dot_scaled` lets Triton decode and multiplies with matrix
instructions, where only one of 16 rows is a token.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.bench.limits import Limits
from oss_kernels.bench.timing import Time, time_calls
from oss_kernels.cases import Make, nbytes
from oss_kernels.launch import Launch
from oss_kernels.mxfp4.decode import weight_tile
from oss_kernels.mxfp4_linear import decode, reference
from oss_kernels.shapes import GPT_OSS_20B

COPIES = 24  # of 8.8 MB each: more than any L2 cache
MakeLaunches = Callable[..., tuple[Launch, ...]]


@triton.jit
def bytes_kernel(x, blocks, scales, out, rows, groups, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    sums = tl.zeros((ROWS, 32 * GROUPS), tl.float32)
    for start in range(0, groups, GROUPS):
        group = start + tl.arange(0, GROUPS)
        weights = weight_tile(blocks, scales, row, rows, group, groups)
        column = start * 32 + tl.arange(0, 32 * GROUPS)
        values = tl.load(x + column, mask=column < groups * 32, other=0.0).to(tl.float32)
        sums += weights * values[None, :]
    tl.store(out + row, tl.sum(sums, axis=1), mask=row < rows)


@triton.jit
def dot_scaled_kernel(
    x, blocks, scales, out, rows, groups, ROWS: tl.constexpr, GROUPS: tl.constexpr
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    sums = tl.zeros((16, ROWS), tl.float32)
    for start in range(0, groups, GROUPS):
        group = start + tl.arange(0, GROUPS)
        byte = start * 16 + tl.arange(0, 16 * GROUPS)
        column = start * 32 + tl.arange(0, 32 * GROUPS)
        packed = tl.load(  # [16 * GROUPS, ROWS]
            blocks + row[None, :] * (groups * 16) + byte[:, None],
            mask=(row < rows)[None, :] & (byte < groups * 16)[:, None],
            other=0,
        )
        scale = tl.load(  # [ROWS, GROUPS]
            scales + row[:, None] * groups + group[None, :],
            mask=(row < rows)[:, None] & (group < groups)[None, :],
            other=0,
        )
        token = tl.arange(0, 16)[:, None]
        values = tl.load(  # [16, 32 * GROUPS]; only row 0 is a token
            x + column[None, :], mask=(token < 1) & (column < groups * 32)[None, :], other=0.0
        )
        sums = tl.dot_scaled(values, None, "bf16", packed, scale, "e2m1", sums)
    one = tl.sum(tl.where(tl.arange(0, 16)[:, None] == 0, sums, 0.0), axis=0)
    tl.store(out + row, one, mask=row < rows)


def make_launch_function(kernel: Callable, tile: int, groups: int) -> MakeLaunches:
    """A function for a kernel above, like `mxfp4_linear.decode.make_launches`."""

    def make_launches(
        x: Tensor, blocks: Tensor, scales: Tensor, bias: None, out: Tensor
    ) -> tuple[Launch, ...]:
        rows = len(scales)
        launch = Launch(
            kernel,
            (triton.cdiv(rows, tile),),
            {
                "x": x,
                "blocks": blocks,
                "scales": scales,
                "out": out,
                "rows": rows,
                "groups": scales.shape[1],
            },
            {"ROWS": tile, "GROUPS": groups},
        )
        return (launch,)

    return make_launches


FORMS: dict[str, MakeLaunches] = {
    "words": decode.make_launches,
    "bytes": make_launch_function(bytes_kernel, 8, 4),
    "dot_scaled": make_launch_function(dot_scaled_kernel, 64, 4),
}


@dataclass(frozen=True)
class Form:
    """The time of one form, and its largest error relative to the largest output."""

    name: str
    microseconds: Time
    gigabytes_per_second: float
    share_of_copy: float
    error: float


def measure_forms(best: Limits) -> Iterator[Form]:
    s = GPT_OSS_20B
    for name, make_launches in FORMS.items():
        launches, error, size = list[Launch](), 0.0, 0
        for seed in range(COPIES):
            make = Make("cuda", seed)
            blocks, scales = make.mxfp4(2 * s.width, columns=s.hidden)
            x, out = make.normal(1, s.hidden), make.empty(1, 2 * s.width)
            every = make_launches(x, blocks, scales, None, out)
            for each in every:  # the first may arrange x, which is done once per token
                each()
            launches.append(every[-1])
            size = nbytes(x, blocks, scales, out)
            if seed == 0:
                exact = reference.mxfp4_linear(x.double(), blocks, scales, None)
                error = float((out - exact).abs().max() / exact.abs().max())
        time = time_calls(launches)
        rate = size / time.median * 1e6
        yield Form(name, time, rate / 1e9, rate / best.copy, error)
