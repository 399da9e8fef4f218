"""The views of a notebook, by name. What they draw is in `js/views`."""

from oss_widgets.analysis_views import (
    Attribution,
    Branches,
    Commitment,
    EffortLens,
    LogitLens,
    Microscope,
)
from oss_widgets.array_views import Attention, Experts, Tokens
from oss_widgets.chat import Chat

__all__ = [
    "Attention",
    "Attribution",
    "Branches",
    "Chat",
    "Commitment",
    "EffortLens",
    "Experts",
    "LogitLens",
    "Microscope",
    "Tokens",
]
