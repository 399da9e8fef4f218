"""The views of a notebook, by name. What they draw is in `js/views`.

view.py      what all views have: traits, stored outputs, the connection
chat.py      Chat
arrays.py    Tokens, Experts and Attention: of a run, or of the caller's own array
analyses.py  the views of one analysis each, and Branches
still.py     what a view shows without a kernel; transcript.py: of the Chat
script.py    the JavaScript and the styles that a view sends to the browser
"""

from oss_widgets.views.analyses import (
    Attribution,
    Branches,
    Commitment,
    EffortLens,
    LogitLens,
    Microscope,
)
from oss_widgets.views.arrays import Attention, Experts, Tokens
from oss_widgets.views.chat import Chat

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
