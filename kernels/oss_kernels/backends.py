"""Which code computes an operation: plain torch, Triton on a GPU, or numba on a CPU.

A `Backend` has one function for each operation of a forward pass, and for each gradient that
fine-tuning needs (`autograd`). A function has the same signature in every backend. Nothing here
falls back silently: `auto` picks a backend by name.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import torch

KernelName = Literal["reference", "triton", "cpu"]
KernelChoice = KernelName | Literal["auto"]
NAMES: tuple[KernelName, ...] = get_args(KernelName)

MODULES: dict[KernelName, dict[str, str]] = {
    "reference": {
        "rms_norm": "rms_norm.reference",
        "linear": "linear.reference",
        "attention": "attention.reference",
        "router": "router.reference",
        "expert_mlp": "experts.reference",
        "attention_backward": "attention_backward.reference",
        "mxfp4_linear": "mxfp4_linear.reference",
        "mxfp4_linear_backward": "mxfp4_linear_backward.reference",
        "swiglu_backward": "swiglu_backward.reference",
    },
    "triton": {
        "rms_norm": "rms_norm.kernel",
        "linear": "linear.kernel",
        "attention": "attention.kernel",
        "router": "router.kernel",
        "expert_mlp": "experts.kernel",
        "attention_backward": "attention_backward.kernel",
        "mxfp4_linear": "mxfp4_linear.kernel",
        "mxfp4_linear_backward": "mxfp4_linear_backward.kernel",
        "swiglu_backward": "swiglu_backward.kernel",
    },
    "cpu": {
        "rms_norm": "rms_norm.reference",
        "linear": "linear.cpu",
        "attention": "attention.cpu",
        "router": "router.reference",
        "expert_mlp": "experts.cpu",
        "attention_backward": "attention_backward.cpu",
        "mxfp4_linear": "mxfp4_linear.cpu",
        "mxfp4_linear_backward": "mxfp4_linear_backward.cpu",
        "swiglu_backward": "swiglu_backward.cpu",
    },
}
"""The module of each operation. On a CPU the norm and the router run in plain torch."""


class UnusableBackend(ValueError):
    """The requested kernels cannot run here. The message gives the reason in one sentence."""


@dataclass(frozen=True)
class Backend:
    """The operations. Their shapes and types are documented in each `reference.py`."""

    name: KernelName
    rms_norm: Callable[..., Any]
    linear: Callable[..., Any]
    attention: Callable[..., Any]
    router: Callable[..., Any]
    expert_mlp: Callable[..., Any]
    attention_backward: Callable[..., Any]
    mxfp4_linear: Callable[..., Any]
    mxfp4_linear_backward: Callable[..., Any]
    swiglu_backward: Callable[..., Any]


def find_obstacle(name: KernelName, device: torch.device) -> str | None:
    """The reason these kernels cannot run on this device, or None if they can."""
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


def choose_backend(asked: str, device: torch.device) -> Backend:
    """Load a backend by name. `auto` takes the kernels for this device if they can run.

    Raises:
        UnusableBackend: the name is unknown, or the backend cannot run on this device.
    """
    if asked == "auto":
        made_for: tuple[KernelName, ...] = ("triton", "cpu", "reference")
        return load_backend(next(name for name in made_for if find_obstacle(name, device) is None))
    if asked not in NAMES:
        raise UnusableBackend(f"kernels must be {', '.join(NAMES)} or auto, not {asked!r}")
    if reason := find_obstacle(asked, device):
        raise UnusableBackend(f"kernels {asked!r} cannot be used here: {reason}")
    return load_backend(asked)


def load_backend(name: KernelName) -> Backend:
    """Import a backend's modules.

    Raises:
        UnusableBackend: the modules or their dependencies cannot be imported.
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
            "repair the installation, or use kernels 'reference'"
        ) from error
    return Backend(name, **operations)
