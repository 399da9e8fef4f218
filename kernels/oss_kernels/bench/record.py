"""A benchmark's result as a file: what was measured, on what, with which versions and code."""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "numba", "llvmlite", "numpy")


def stamp(device: str) -> dict[str, Any]:
    """Date, code, versions and the device, "cpu" or "cuda"."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": output("git", "describe", "--always", "--dirty"),
        "device": gpu() if device == "cuda" else cpu(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES},
    }


def gpu() -> dict[str, Any]:
    capability = "sm_{}{}".format(*torch.cuda.get_device_capability())
    driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {"name": torch.cuda.get_device_name(), "arch": capability, "driver": driver}


def cpu() -> dict[str, Any]:
    return {"name": cpu_name(), "threads": torch.get_num_threads(), "arch": platform.machine()}


def cpu_name() -> str:
    """As Linux tells it; elsewhere, and where Linux does not, what the platform module knows."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def output(*command: str) -> str | None:
    """What a program says, run beside this file; None where it cannot run."""
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def write(found: dict[str, Any], folder: Path, name: str) -> Path:
    """One JSON file, named after the device and the date."""
    folder.mkdir(parents=True, exist_ok=True)
    date = str(found["date"])[:19].replace(":", "")
    path = folder / f"{'-'.join(name.lower().split())}-{date}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path
