"""oss_widgets: interactive views for notebooks, and a page that runs nano in a browser.

    from oss_widgets import Chat, Experts
    chat = Chat(lab, "What is 347 * 62?", effort="high")
    Experts(chat)                        # in another cell: the same run and the same selection

views    Chat, Tokens, Experts, Attention, LogitLens, … for a notebook
sources  where they get their numbers: a model, another engine, a trace, your own array
page     write_page: one web page in which nano runs
js       what runs in the browser: nano, the views and the page
join.py  joins the JavaScript into one script
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oss_widgets.page.write import write_page

if TYPE_CHECKING:
    from oss_widgets.views import (
        Attention,
        Attribution,
        Branches,
        Chat,
        Commitment,
        EffortLens,
        Experts,
        LogitLens,
        Microscope,
        Tokens,
    )

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
    "write_page",
]


def __getattr__(name: str) -> Any:
    """Import the views when one is first used: writing a page needs no Jupyter package."""
    if name not in __all__:
        raise AttributeError(f"module 'oss_widgets' has no attribute {name!r}")
    return getattr(import_module("oss_widgets.views"), name)
