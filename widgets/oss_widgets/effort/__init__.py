"""Ask a question at any of the three efforts: see widget.py."""

from oss_widgets.effort.widget import EffortWidget

__all__ = ["EffortWidget"]
