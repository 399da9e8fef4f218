"""The Triton kernels on this machine's CUDA device, beside what the device can do at best.

First what decides a design: copying, a bfloat16 product of matrix and vector, the ways to decode
MXFP4, the cost of a boundary between kernels. Then every operation at the sizes of 20b and 120b.
What is not done within the time limit is named and left out.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from oss_kernels.bench import boundary, forms, limits, record
from oss_kernels.bench.limits import Limits
from oss_kernels.bench.timing import Time, time_calls
from oss_kernels.cases import Case, Make
from oss_kernels.operations import OPERATIONS, cases_of
from oss_kernels.shapes import MODELS, Shapes

SECONDS = 480.0  # for all of it, compilation included; `main` names what is left out
MEMORY = 200e6  # bytes of operands at least, beyond any second-level cache
MOST_COPIES = 32
BOUNDARY_ELEMENTS = (1024, 1_000_000)  # nothing to do, and about 5 us at 2 TB/s


@dataclass(frozen=True)
class Row:
    """One case. Shares are of the measured copy speed and matrix rate; bytes count once each."""

    operation: str
    case: str
    model: str
    microseconds: Time
    gigabytes_per_second: float
    share_of_copy: float
    teraflops: float
    share_of_matrix: float


def row(operation: str, model: str, case: Case, time: Time, best: Limits) -> Row:
    bytes_rate, flop_rate = (1e6 * amount / time.median for amount in (case.bytes, case.flops))
    return Row(
        operation,
        case.name,
        model,
        time,
        bytes_rate / 1e9,
        bytes_rate / best.copy,
        flop_rate / 1e12,
        flop_rate / best.matrix,
    )


def rows(operations: tuple[str, ...], best: Limits, until: float) -> Iterator[Row | str]:
    """A row a case, or its name where no time is left."""
    for operation in operations:
        for shapes in MODELS:
            for number, case in enumerate(cases_of(operation, shapes, Make("cuda"))):
                if time.monotonic() > until:
                    yield f"{case.name} ({shapes.name})"
                    continue
                copies = [case, *further(operation, shapes, number, case.bytes)]
                calls = [lambda each=each: run(each) for each in copies]
                yield row(operation, shapes.name, case, time_calls(calls), best)


def further(operation: str, shapes: Shapes, number: int, size: int) -> list[Case]:
    """The same case on other operands, until all of them fill more than the cache."""
    count = min(MOST_COPIES, int(MEMORY // size)) if size < MEMORY else 0
    return [
        next(
            case
            for n, case in enumerate(cases_of(operation, shapes, Make("cuda", seed)))
            if n == number
        )
        for seed in range(1, count + 1)
    ]


def run(case: Case) -> None:
    for launch in case.launches:
        launch()


def main(results: Path | None, operations: tuple[str, ...] = OPERATIONS) -> None:
    until = time.monotonic() + SECONDS
    best = limits.measure()
    print(f"copy {best.copy / 1e12:.2f} TB/s, matrix {best.matrix / 1e12:.0f} TFLOP/s")
    found: dict[str, Any] = record.stamp("cuda") | {"limits": asdict(best)}
    found["boundary"] = {str(n): boundary.measure(n) for n in BOUNDARY_ELEMENTS}
    print(f"boundary between kernels, us: {found['boundary']}")
    found["forms"] = [asdict(each) for each in forms.measure(best)]
    for each in found["forms"]:
        print(each)
    found["rows"], found["left_out"] = [], []
    for each in rows(operations, best, until):
        if isinstance(each, str):
            found["left_out"].append(each)
        else:
            found["rows"].append(asdict(each))
            print(line(each), flush=True)
    if found["left_out"]:
        print(f"no time was left for {', '.join(found['left_out'])}")
    if results:
        print(record.write(found, results, torch.cuda.get_device_name()))


def line(row: Row) -> str:
    """For a person who watches."""
    return (
        f"{row.case} ({row.model}): {row.microseconds.median:.1f} us,"
        f" {row.gigabytes_per_second:.0f} GB/s ({row.share_of_copy:.0%}),"
        f" {row.teraflops:.1f} TFLOP/s ({row.share_of_matrix:.0%})"
    )
