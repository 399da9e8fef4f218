"""Compare a memory plan with the free memory, before anything large is loaded."""

from pathlib import Path

import torch

from oss_lab.checkpoint.plan import MemoryPlan
from oss_lab.errors import LabError

MEMINFO = Path("/proc/meminfo")


def check_memory(plan: MemoryPlan, device: torch.device) -> None:
    """Raise LabError if dense experts do not fit into the free memory of the device."""
    free = find_free_memory(device)
    if free is not None and plan.total > free:
        raise LabError(
            f"this checkpoint needs {plan.total / 2**30:,.1f} GiB in {plan.dtype} with its dense"
            f" experts, and {free / 2**30:,.1f} GiB are free on {device}; pack the experts with"
            " `oss-lab convert FOLDER --to huggingface --out DIR --experts mxfp4`"
        )


def find_free_memory(device: torch.device) -> int | None:
    """Free bytes on a GPU or, under Linux, in main memory; None if it cannot be found out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    lines = (line.split() for line in MEMINFO.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"), None)
