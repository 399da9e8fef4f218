"""The workbench in one object: `load` makes a `Lab`, whose verbs a person types.

workbench.py    Lab: chat, stream, generate, trace, logits, lens, patch, gradients, intervene
options.py      the keywords of these verbs
prompts.py      from text, messages, replies or ids to tokens
generation.py   one call that generates: its requests, and its replies
tool_rounds.py  replies over tool calls whose outputs are known
loading.py      from a name or a folder to a Lab
"""

from oss_lab.lab.loading import load
from oss_lab.lab.workbench import Lab

__all__ = ["Lab", "load"]
