"""oss_lab: a workbench for learning how OpenAI's gpt-oss models work.

    import oss_lab
    lab = oss_lab.load("nano")          # or "20b", "120b", a checkpoint folder

Nothing below is imported before it is first used, so `import oss_lab` does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oss_lab.version import __version__

if TYPE_CHECKING:
    from oss_lab.engine.generate import Sampling
    from oss_lab.hooks.interventions import (
        AddVector,
        BiasExpert,
        ForceExpert,
        HideKeys,
        NarrowWindow,
        Patch,
        ScaleExpert,
        ScaleHead,
        ScaleSlot,
        SetSink,
        ShiftSink,
        SwapIn,
    )
    from oss_lab.lab import Lab, load
    from oss_lab.record.reply import Reply
    from oss_lab.record.trace import Trace, read_trace

MODULES = {
    "oss_lab.lab": ("Lab", "load"),
    "oss_lab.engine.generate": ("Sampling",),
    "oss_lab.record.reply": ("Reply",),
    "oss_lab.record.trace": ("Trace", "read_trace"),
    "oss_lab.hooks.interventions": (
        "AddVector",
        "BiasExpert",
        "ForceExpert",
        "HideKeys",
        "NarrowWindow",
        "Patch",
        "ScaleExpert",
        "ScaleHead",
        "ScaleSlot",
        "SetSink",
        "ShiftSink",
        "SwapIn",
    ),
}
HOMES = {name: module for module, names in MODULES.items() for name in names}
__all__ = [
    "AddVector",
    "BiasExpert",
    "ForceExpert",
    "HideKeys",
    "Lab",
    "NarrowWindow",
    "Patch",
    "Reply",
    "Sampling",
    "ScaleExpert",
    "ScaleHead",
    "ScaleSlot",
    "SetSink",
    "ShiftSink",
    "SwapIn",
    "Trace",
    "__version__",
    "load",
    "read_trace",
]


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'oss_lab' has no attribute {name!r}")
