"""`python -m oss_kernels.bench`: time the GPU kernels, or with --cpu the CPU kernels.

Every result is compared with the best the machine can do, measured in the same run. --results
FOLDER saves the results as JSON. The GPU benchmark needs torch, triton and jaxtyping; the CPU
benchmark needs torch, numba and jaxtyping.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from oss_kernels.bench.options import parse_positive


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_kernels.bench", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="time the CPU kernels")
    parser.add_argument(
        "--threads", type=parse_positive, help="CPU threads; default: as torch uses"
    )
    parser.add_argument(
        "--samples",
        type=parse_positive,
        default=60,
        help="undisturbed samples to take of each CPU kernel",
    )
    parser.add_argument("--results", type=Path, help="folder for a JSON file; default: not saved")
    arguments = parser.parse_args()
    if arguments.cpu:
        require("numba", "oss-lab[cpu]")
        try:
            from oss_kernels.bench import cpu
        except ImportError as error:  # from numba, or an invalid OSS_KERNELS_CPU
            sys.exit(f"oss_kernels.bench: {error}")
        cpu.main(arguments.threads, arguments.samples, arguments.results)
        return
    if not torch.cuda.is_available():
        sys.exit(
            "oss_kernels.bench: torch finds no CUDA device here; use --cpu to time the CPU kernels"
        )
    require("triton", "triton")
    from oss_kernels.bench import gpu

    gpu.main(arguments.results)


def require(package: str, requirement: str) -> None:
    """End the program if a package is not installed."""
    if find_spec(package) is None:
        sys.exit(f"oss_kernels.bench: {package} is not installed (`pip install '{requirement}'`)")


if __name__ == "__main__":
    main()
