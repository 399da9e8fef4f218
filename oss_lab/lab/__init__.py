"""The Python interface: `load` returns a `Lab`, and you call its methods.

workbench.py    Lab: chat, stream, generate, trace, logits, lens, patch, gradients, intervene
options.py      the keywords of these methods
prompts.py      the kinds of input, and their conversion to token ids
generation.py   one call that generates: from keywords to requests to replies
tool_rounds.py  replies with tool calls whose outputs are already known
loading.py      `load`: from a name or a folder to a Lab
"""

from oss_lab.lab.loading import load
from oss_lab.lab.workbench import Lab

__all__ = ["Lab", "load"]
