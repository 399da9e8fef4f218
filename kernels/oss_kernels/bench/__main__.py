"""`python -m oss_kernels.bench`: time the kernels of a GPU, or with --cpu those of a CPU.

Every figure stands beside what the machine can do at best, measured in the same run. With
--results and a folder they are kept there as JSON. A GPU's needs torch, triton and jaxtyping, a
CPU's torch, numba and jaxtyping.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from oss_kernels.bench.options import positive


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_kernels.bench", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="the CPU's kernels")
    parser.add_argument("--threads", type=positive, help="of the CPU; default: torch's number")
    parser.add_argument(
        "--samples", type=positive, default=60, help="quiet ones that a CPU run wants"
    )
    parser.add_argument("--results", type=Path, help="folder for a JSON file; default: none")
    arguments = parser.parse_args()
    if arguments.cpu:
        require("numba", "oss-lab[cpu]")
        try:
            from oss_kernels.bench import cpu
        except ImportError as error:  # numba's, or of OSS_KERNELS_CPU
            sys.exit(f"oss_kernels.bench: {error}")
        cpu.main(arguments.threads, arguments.samples, arguments.results)
        return
    if not torch.cuda.is_available():
        sys.exit(
            "oss_kernels.bench: torch finds no CUDA device here; --cpu times the CPU's kernels"
        )
    require("triton", "triton")
    from oss_kernels.bench import gpu

    gpu.main(arguments.results)


def require(package: str, requirement: str) -> None:
    """End the program where a package is not installed."""
    if find_spec(package) is None:
        sys.exit(f"oss_kernels.bench: {package} is not installed (`pip install '{requirement}'`)")


if __name__ == "__main__":
    main()
