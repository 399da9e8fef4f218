"""Ways to decode MXFP4 in a product of matrix and vector, timed: one token, 20b's sizes.

`words` is what `mxfp4_linear` uses. `bytes` is the plainest form: a byte is two codes, each decoded
and scaled by itself. `dot_scaled` leaves the decoding to Triton and multiplies with matrix
instructions, of whose 16 rows one is a token.
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

COPIES = 24  # of 8.8 MB: beyond any second-level cache


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
        packed = tl.load(
            blocks + row[None, :] * (groups * 16) + byte[:, None],
            mask=(row < rows)[None, :] & (byte < groups * 16)[:, None],
            other=0,
        )
        scale = tl.load(
            scales + row[:, None] * groups + group[None, :],
            mask=(row < rows)[:, None] & (group < groups)[None, :],
            other=0,
        )
        token = tl.arange(0, 16)[:, None]
        values = tl.load(
            x + column[None, :], mask=(token < 1) & (column < groups * 32)[None, :], other=0.0
        )
        sums = tl.dot_scaled(values, None, "bf16", packed, scale, "e2m1", sums)
    one = tl.sum(tl.where(tl.arange(0, 16)[:, None] == 0, sums, 0.0), axis=0)
    tl.store(out + row, one, mask=row < rows)


def with_kernel(kernel: Callable, tile: int, groups: int) -> Callable[..., Launch]:
    """How a form above is launched, in the manner of `mxfp4_linear.decode.launch`."""

    def launch(x: Tensor, blocks: Tensor, scales: Tensor, bias: None, out: Tensor) -> Launch:
        rows = len(scales)
        return Launch(
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

    return launch


FORMS: dict[str, Callable[..., Launch]] = {
    "words": decode.launch,
    "bytes": with_kernel(bytes_kernel, 8, 4),
    "dot_scaled": with_kernel(dot_scaled_kernel, 64, 4),
}


@dataclass(frozen=True)
class Form:
    """One form's time and its largest error, as a share of the largest output."""

    name: str
    microseconds: Time
    gigabytes_per_second: float
    share_of_copy: float
    error: float


def measure(best: Limits) -> Iterator[Form]:
    s = GPT_OSS_20B
    for name, launch in FORMS.items():
        launches, error, size = list[Launch](), 0.0, 0
        for seed in range(COPIES):
            make = Make("cuda", seed)
            blocks, scales = make.mxfp4(2 * s.width, columns=s.hidden)
            x, out = make.normal(1, s.hidden), make.empty(1, 2 * s.width)
            launches.append(launch(x, blocks, scales, None, out))
            size = nbytes(x, blocks, scales, out)
            if seed == 0:
                launches[0]()
                exact = reference.mxfp4_linear(x.double(), blocks, scales, None)
                error = float((out - exact).abs().max() / exact.abs().max())
        time = time_calls(launches)
        rate = size / time.median * 1e6
        yield Form(name, time, rate / 1e9, rate / best.copy, error)
