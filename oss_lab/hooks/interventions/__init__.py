"""Interventions: small frozen objects that say what is changed inside a forward, where and when.

    with lab.intervene(ScaleExpert(layer=2, expert=7, by=0)) as effects:
        reply = lab.chat("What is 347 * 62?")
    print(effects)

A `layer` or `head` of None is every one, `positions` of None every token. An intervention writes at
a point of `oss_lab/hooks/points.py`; `changes.py` applies it there and measures its effect. None of
them runs code that a file brought.
"""

from oss_lab.hooks.interventions.attention import (
    HideKeys,
    NarrowWindow,
    ScaleHead,
    SetSink,
    ShiftSink,
    hide_channel,
)
from oss_lab.hooks.interventions.base import Intervention
from oss_lab.hooks.interventions.experts import (
    BiasExpert,
    ForceExpert,
    ScaleExpert,
    ScaleSlot,
    SwapIn,
)
from oss_lab.hooks.interventions.values import AddVector, Patch

__all__ = [
    "AddVector",
    "BiasExpert",
    "ForceExpert",
    "HideKeys",
    "Intervention",
    "NarrowWindow",
    "Patch",
    "ScaleExpert",
    "ScaleHead",
    "ScaleSlot",
    "SetSink",
    "ShiftSink",
    "SwapIn",
    "hide_channel",
]
