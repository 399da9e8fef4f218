"""oss_lab: a workbench for learning how OpenAI's gpt-oss models work.

    import oss_lab
    lab = oss_lab.load("nano")          # or "20b", "120b", a checkpoint folder

Names are imported when they are first used, so `import oss_lab` does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oss_lab.version import __version__ as __version__

if TYPE_CHECKING:
    from oss_lab.agents.agent import Agent as Agent
    from oss_lab.agents.budget import Budget as Budget
    from oss_lab.agents.tool import Tool as Tool
    from oss_lab.engine.sampling import Sampling as Sampling
    from oss_lab.hooks.interventions import AblateExpert as AblateExpert
    from oss_lab.hooks.interventions import AblateHead as AblateHead
    from oss_lab.hooks.interventions import AblateSlot as AblateSlot
    from oss_lab.hooks.interventions import AddVector as AddVector
    from oss_lab.hooks.interventions import BanExpert as BanExpert
    from oss_lab.hooks.interventions import BiasExpert as BiasExpert
    from oss_lab.hooks.interventions import ForceExpert as ForceExpert
    from oss_lab.hooks.interventions import HideKeys as HideKeys
    from oss_lab.hooks.interventions import Hook as Hook
    from oss_lab.hooks.interventions import NarrowWindow as NarrowWindow
    from oss_lab.hooks.interventions import Patch as Patch
    from oss_lab.hooks.interventions import RemoveSink as RemoveSink
    from oss_lab.hooks.interventions import ScaleExpert as ScaleExpert
    from oss_lab.hooks.interventions import ScaleHead as ScaleHead
    from oss_lab.hooks.interventions import ScaleSlot as ScaleSlot
    from oss_lab.hooks.interventions import SetSink as SetSink
    from oss_lab.hooks.interventions import ShiftSink as ShiftSink
    from oss_lab.hooks.interventions import UseNextBest as UseNextBest
    from oss_lab.lab import Lab as Lab
    from oss_lab.lab import load as load
    from oss_lab.lab.options import Options as Options
    from oss_lab.record.reply import Reply as Reply
    from oss_lab.record.trace import Trace as Trace
    from oss_lab.record.trace import read_trace as read_trace
    from oss_lab.server.remote.connection import connect as connect

MODULES = {
    "oss_lab.agents.agent": "Agent",
    "oss_lab.agents.budget": "Budget",
    "oss_lab.agents.tool": "Tool",
    "oss_lab.lab": "Lab load",
    "oss_lab.lab.options": "Options",
    "oss_lab.engine.sampling": "Sampling",
    "oss_lab.record.reply": "Reply",
    "oss_lab.record.trace": "Trace read_trace",
    "oss_lab.server.remote.connection": "connect",
    "oss_lab.hooks.interventions": """
        AblateExpert AblateHead AblateSlot AddVector BanExpert BiasExpert ForceExpert HideKeys Hook
        NarrowWindow Patch RemoveSink ScaleExpert ScaleHead ScaleSlot SetSink ShiftSink UseNextBest
    """,
}
HOMES = {name: module for module, names in MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted([*HOMES, "__version__"])
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'oss_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*HOMES, "__version__"])
