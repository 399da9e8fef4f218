"""The Triton kernels on this machine's CUDA device, compared with the best the device can do.

First come the measurements that decide a design: copying memory, bfloat16 products with a matrix
and with a vector, the ways to decode MXFP4, and the time between two kernels. Then the whole decode
step and prefill of 20b, and every operation at the sizes of 20b and 120b. Cases that do not fit
into the time limit are listed and left out.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from oss_kernels.bench import boundary, forms, limits, record, step
from oss_kernels.bench.limits import Limits
from oss_kernels.bench.timing import Time, time_calls
from oss_kernels.cases import Case, Make
from oss_kernels.operations import OPERATIONS, make_operation_cases
from oss_kernels.shapes import GPT_OSS_20B, MODELS, Shapes

SECONDS = 480.0  # for the complete run, including compilation; `main` lists what is left out
MEMORY = 200e6  # minimum bytes of all copies of the operands: more than any L2 cache
MOST_COPIES = 32
CONTEXT, CAPACITY, PROMPT = 1024, 4096, 2048  # tokens of the whole steps
BOUNDARY_ELEMENTS = (1024, 1_000_000)  # almost no work, and about 5 us at 2 TB/s


@dataclass(frozen=True)
class GpuResult:
    """The result of one case.

    Shares are relative to the measured copy speed and matrix rate. Each byte is counted once.
    """

    operation: str
    case: str
    model: str
    microseconds: Time
    gigabytes_per_second: float
    share_of_copy: float
    teraflops: float
    share_of_matrix: float


def summarize(operation: str, model: str, case: Case, time: Time, best: Limits) -> GpuResult:
    bytes_rate, flop_rate = (1e6 * amount / time.median for amount in (case.bytes, case.flops))
    return GpuResult(
        operation,
        case.name,
        model,
        time,
        bytes_rate / 1e9,
        bytes_rate / best.copy,
        flop_rate / 1e12,
        flop_rate / best.matrix,
    )


def measure_cases(
    operations: tuple[str, ...], best: Limits, until: float
) -> Iterator[GpuResult | str]:
    """One row per case, or only the name of the case if no time is left."""
    for operation in operations:
        for shapes in MODELS:
            for number, case in enumerate(make_operation_cases(operation, shapes, Make("cuda"))):
                if time.monotonic() > until:
                    yield f"{case.name} ({shapes.name})"
                    continue
                copies = [case, *make_copies(operation, shapes, number, case.bytes)]
                calls = [lambda each=each: run_case(each) for each in copies]
                yield summarize(operation, shapes.name, case, time_calls(calls), best)


def make_copies(operation: str, shapes: Shapes, number: int, size: int) -> list[Case]:
    """The same case on other operands: enough copies to be larger than the cache."""
    count = min(MOST_COPIES, int(MEMORY // size)) if size < MEMORY else 0
    return [
        next(
            case
            for n, case in enumerate(make_operation_cases(operation, shapes, Make("cuda", seed)))
            if n == number
        )
        for seed in range(1, count + 1)
    ]


def run_case(case: Case) -> None:
    for launch in case.launches:
        launch()


def main(results: Path | None, operations: tuple[str, ...] = OPERATIONS) -> None:
    until = time.monotonic() + SECONDS
    best = limits.measure_limits()
    print(f"copy {best.copy / 1e12:.2f} TB/s, matrix {best.matrix / 1e12:.0f} TFLOP/s")
    result: dict[str, Any] = record.build_stamp("cuda") | {"limits": asdict(best)}
    result["products"] = limits.measure_products()
    print(f"bfloat16 matrix-vector products, GB/s: {result['products']}")
    result["forms"] = [asdict(each) for each in forms.measure_forms(best)]
    for each in result["forms"]:
        print(each)
    result["boundary"] = {str(n): boundary.measure_boundary(n) for n in BOUNDARY_ELEMENTS}
    print(f"boundary between kernels, us: {result['boundary']}", flush=True)
    result |= measure_model(GPT_OSS_20B, best, Make("cuda"))
    result["rows"], result["left_out"] = [], []
    for each in measure_cases(operations, best, until):
        if isinstance(each, str):
            result["left_out"].append(each)
        else:
            result["rows"].append(asdict(each))
            print(format_row(each), flush=True)
    if result["left_out"]:
        print(f"left out, since the time limit was reached: {', '.join(result['left_out'])}")
    if results:
        print(record.write(result, results, torch.cuda.get_device_name()))


def measure_model(shapes: Shapes, best: Limits, make: Make) -> dict[str, Any]:
    """Whole steps, every kernel's microseconds per step, and a prefill; printed, and as JSON."""
    weights = step.make_weights(shapes, make, CAPACITY)
    steps = list(step.measure_steps(weights, best, CONTEXT))
    steps.append(step.measure_prefill(weights, best, PROMPT))
    for each in steps:
        print(
            f"{each.name} ({shapes.name}): {each.microseconds.median:.0f} us,"
            f" {each.tokens_per_second:,.0f} tokens/s ({each.of_limit:.0%} of the limit)"
        )
    shares = step.measure_shares(weights, CONTEXT)
    for name, microseconds in shares.items():
        print(
            f"{name}: {microseconds:.0f} us of a step ({microseconds / sum(shares.values()):.0%})"
        )
    return {"steps": [asdict(each) for each in steps], "shares": shares}


def format_row(row: GpuResult) -> str:
    """A row as one line of text."""
    return (
        f"{row.case} ({row.model}): {row.microseconds.median:.1f} us,"
        f" {row.gigabytes_per_second:.0f} GB/s ({row.share_of_copy:.0%}),"
        f" {row.teraflops:.1f} TFLOP/s ({row.share_of_matrix:.0%})"
    )
