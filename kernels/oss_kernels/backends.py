"""Which code computes an operation: plain torch, Triton on a GPU, or numba on a CPU.

A `Backend` holds one function for each operation of a forward pass; those of one name have the same
signature in all of them. Nothing here falls back on its own: `auto` is a choice, and says which.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import torch

Name = Literal["reference", "triton", "cpu"]
Asked = Name | Literal["auto"]
NAMES: tuple[Name, ...] = get_args(Name)

MODULES: dict[Name, dict[str, str]] = {
    "reference": {
        "rms_norm": "rms_norm.reference",
        "linear": "linear.reference",
        "attention": "attention.reference",
        "router": "router.reference",
        "expert_mlp": "experts.reference",
    },
    "triton": {
        "rms_norm": "rms_norm.kernel",
        "linear": "linear.kernel",
        "attention": "attention.kernel",
        "router": "router.kernel",
        "expert_mlp": "experts.kernel",
    },
    "cpu": {
        "rms_norm": "rms_norm.reference",
        "linear": "linear.cpu",
        "attention": "attention.cpu",
        "router": "router.reference",
        "expert_mlp": "experts.cpu",
    },
}
"""The module of each operation. On a CPU, norm and router are torch's own work."""


class UnusableBackend(ValueError):
    """The kernels asked for cannot run here; one sentence says why."""


@dataclass(frozen=True)
class Backend:
    """The operations; shapes and types are in each one's `reference.py`."""

    name: Name
    rms_norm: Callable[..., Any]
    linear: Callable[..., Any]
    attention: Callable[..., Any]
    router: Callable[..., Any]
    expert_mlp: Callable[..., Any]


def obstacle(name: Name, device: torch.device) -> str | None:
    """Why these kernels cannot run on this device; None if they can."""
    if name == "triton":
        if device.type != "cuda":
            return f"they run on a GPU, and the model is on {device}"
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed"
    if name == "cpu":
        if device.type != "cpu":
            return f"they run on a CPU, and the model is on {device}"
        if importlib.util.find_spec("numba") is None:
            return "numba is not installed (`pip install 'oss-lab[cpu]'`)"
    return None


def choose(asked: str, device: torch.device) -> Backend:
    """The backend asked for; `auto` takes the kernels made for the device, if they can run.

    Raises:
        UnusableBackend: no such name, or it cannot run on this device.
    """
    if asked == "auto":
        made_for: tuple[Name, ...] = ("triton", "cpu", "reference")
        return load(next(name for name in made_for if obstacle(name, device) is None))
    if asked not in NAMES:
        raise UnusableBackend(f"kernels are {', '.join(NAMES)} or auto, not {asked!r}")
    if reason := obstacle(asked, device):
        raise UnusableBackend(f"kernels {asked!r} cannot be used here: {reason}")
    return load(asked)


def load(name: Name) -> Backend:
    """Import a backend's modules.

    Raises:
        UnusableBackend: they, or what they import, cannot be imported.
    """
    try:
        operations = {
            operation: getattr(import_module(f"oss_kernels.{module}"), operation)
            for operation, module in MODULES[name].items()
        }
    except (ImportError, OSError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise UnusableBackend(
            f"kernels {name!r} are installed but cannot be imported ({reason}); "
            "mend that, or ask for kernels 'reference'"
        ) from error
    return Backend(name, **operations)
