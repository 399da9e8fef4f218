"""Run the fast tests and the notebooks with the code paths of other processors.

`make test-processors` runs this file. To run some variants: python tests/processors.py VARIANT ...

The order in which torch, oneDNN and our CPU kernels add numbers depends on the processor, so the
last digits differ. Each variant hides some features of this processor. Variants that it cannot run
are skipped, with the reason. Notebooks are left out of the kernels' variants, because the reference
computes nano there.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from oss_kernels.cpu import machine

ROOT = Path(__file__).resolve().parents[1]
ATEN = {"default": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}
VARIANTS = {
    **{f"aten-{name}": {"ATEN_CPU_CAPABILITY": name} for name in ATEN},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    **{f"kernels-{path}": {"OSS_KERNELS_CPU": path} for path in machine.NEEDS},
}
SUMMARY = re.compile(r"=+ (.*\b(?:passed|failed|error).*) =+")


def obstacle(name: str) -> str:
    """Why this processor cannot run a variant; "" if it can."""
    path = name.removeprefix("kernels-")
    if path in machine.NEEDS and path not in machine.list_paths():
        return f"it lacks {', '.join(sorted(machine.NEEDS[path] - machine.list_features()))}"
    wanted, has = ATEN.get(name.removeprefix("aten-")), torch.backends.cpu.get_cpu_capability()
    if wanted and list(ATEN.values()).index(wanted) > list(ATEN.values()).index(has):
        return f"torch has no more than {has} here"
    return ""


def run(name: str) -> tuple[int, str]:
    """Run the tests, showing their output; return the exit status and the summary line."""
    arguments = ["tests"] if name.startswith("kernels-") else ["--nbval"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--color=no", *arguments],
        cwd=ROOT, env=os.environ | VARIANTS[name], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    counted = "no summary"
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if found := SUMMARY.fullmatch(line.strip()):
            counted = found[1]
    return process.wait(), counted


def main(names: list[str]) -> int:
    if unknown := set(names) - set(VARIANTS):
        print(f"there is no variant {min(unknown)}: choose from {', '.join(VARIANTS)}")
        return 2
    rows, status = [], 0
    for name in names or VARIANTS:
        if reason := obstacle(name):
            rows.append(f"{name:20} skipped: {reason}")
            continue
        print(f"\n{name}: {VARIANTS[name]}", flush=True)
        began = time.monotonic()
        code, counted = run(name)
        rows.append(f"{name:20} {'ok' if code == 0 else 'FAILED'}: {counted}")
        status = status or code
        print(f"{name} took {time.monotonic() - began:.0f} s", flush=True)
    print("\n" + "\n".join(rows))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
