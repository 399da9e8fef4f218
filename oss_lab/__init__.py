"""oss_lab: a workbench for learning how OpenAI's gpt-oss models work.

    import oss_lab
    lab = oss_lab.load("nano")          # or "20b", "120b", a checkpoint folder

torch is imported when `load` or `Lab` is first used, not before.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.loading import load

__version__ = "0.1.0"
__all__ = ["Lab", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from oss_lab.loading import load

        return load
    if name == "Lab":
        from oss_lab.lab import Lab

        return Lab
    raise AttributeError(f"module 'oss_lab' has no attribute {name!r}")
