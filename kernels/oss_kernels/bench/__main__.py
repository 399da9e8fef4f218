"""`python -m oss_kernels.bench`: time the kernels of a GPU, or with --cpu those of a CPU.

Every figure stands beside what the machine can do at best, measured in the same run. With
--results and a folder they are kept there as JSON.
"""

import argparse
import sys
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_kernels.bench", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="the CPU's kernels")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's number")
    parser.add_argument("--samples", type=int, default=60, help="quiet ones that a CPU run wants")
    parser.add_argument("--results", type=Path, help="folder for a JSON file; default: none")
    arguments = parser.parse_args()
    if arguments.cpu:
        from oss_kernels.bench import cpu

        cpu.main(arguments.threads, arguments.samples, arguments.results)
        return
    if not torch.cuda.is_available():
        sys.exit(
            "oss_kernels.bench: torch finds no CUDA device here; --cpu times the CPU's kernels"
        )
    from oss_kernels.bench import gpu

    gpu.main(arguments.results)


if __name__ == "__main__":
    main()
