"""The experiments of lessons 17 to 21 at full size, and their stored results.

    python -m oss_lab.course.labs 18_effort

Each module is the experiment of one lesson. Its `measure(seed)` takes minutes and returns plain
data: counts with their n, curves, and settings. A lesson runs a small part of the same functions,
and shows the stored result.

finetune.py     17: a new task, and what becomes of the old ones
effort.py       18: an effort dial from a price per token
hierarchy.py    19: which role is obeyed (with hierarchy_*.py: rules and conversations, prompts
                that differ in one thing, nano's own rule, kinds of rule, training, tables)
effort.py       18: an effort dial from a price per token; effort_phases.py, effort_dial.py
hierarchy.py    19: which role is obeyed
monitor.py      20: a monitor that reads the chain of thought
worst_case.py   21: a capability that was filtered or refused, and comes back
results.py      the stored results
"""
