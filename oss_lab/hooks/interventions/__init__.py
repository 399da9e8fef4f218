"""Interventions: small frozen objects that name a place in the forward pass and a change to it.

    with lab.intervene(AblateExpert(layer=2, expert=7)) as effects:
        reply = lab.chat("What is 347 * 62?")
    print(effects)

`layer`, `head` and `expert` take an integer, a list or range, or "all", and have no default.
`positions` limits the change to some tokens. Each intervention changes one point of
`oss_lab/hooks/points.py`; `changes.py` applies it and measures its effect. All interventions are
plain data, except `Hook`, which calls your function.
"""

from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.attention import (
    AblateHead,
    HideKeys,
    NarrowWindow,
    RemoveSink,
    ScaleHead,
    SetSink,
    ShiftSink,
    hide_channel,
)
from oss_lab.hooks.interventions.base import Intervention
from oss_lab.hooks.interventions.experts import (
    AblateExpert,
    AblateSlot,
    BanExpert,
    BiasExpert,
    ForceExpert,
    ScaleExpert,
    ScaleSlot,
    UseNextBest,
)
from oss_lab.hooks.interventions.functions import Here, Hook
from oss_lab.hooks.interventions.values import AddVector, Patch

__all__ = [
    "AblateExpert",
    "AblateHead",
    "AblateSlot",
    "AddVector",
    "At",
    "BanExpert",
    "BiasExpert",
    "ForceExpert",
    "Here",
    "HideKeys",
    "Hook",
    "Intervention",
    "NarrowWindow",
    "Patch",
    "RemoveSink",
    "ScaleExpert",
    "ScaleHead",
    "ScaleSlot",
    "SetSink",
    "ShiftSink",
    "UseNextBest",
    "hide_channel",
]
