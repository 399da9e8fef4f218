"""Saves a benchmark's results with the device, the package versions and the commit."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "numba", "llvmlite", "numpy")


def build_stamp(device: str) -> dict[str, Any]:
    """The date, commit, versions and device of a run. `device` is "cpu" or "cuda"."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": run_program("git", "describe", "--always", "--dirty"),
        "device": describe_gpu() if device == "cuda" else describe_cpu(),
        "python": platform.python_version(),
        "versions": {name: find_version(name) for name in PACKAGES},
    }


def describe_gpu() -> dict[str, Any]:
    capability = "sm_{}{}".format(*torch.cuda.get_device_capability())
    driver = run_program("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {"name": torch.cuda.get_device_name(), "arch": capability, "driver": driver}


def describe_cpu() -> dict[str, Any]:
    return {"name": find_cpu_name(), "threads": torch.get_num_threads(), "arch": platform.machine()}


def find_cpu_name() -> str:
    """The CPU's name from /proc/cpuinfo, or else from the platform module."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run_program(*command: str) -> str | None:
    """The output of a program run in this folder, or None if it fails or is not installed."""
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def write(result: dict[str, Any], folder: Path, name: str) -> Path:
    """Write one JSON file, named after the device and the date."""
    folder.mkdir(parents=True, exist_ok=True)
    date = str(result["date"])[:19].replace(":", "")
    path = folder / f"{'-'.join(name.lower().split())}-{date}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
