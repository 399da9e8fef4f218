"""The experiments of lessons 17 to 21 at full size, and their stored results.

    python -m oss_lab.course.labs 18_effort

Each folder is the experiment of one lesson. In its `measure.py`, `measure(seed)` takes minutes and
returns plain data: counts with their n, curves, and settings. A lesson runs a small part of the
same functions, and shows the stored result.

finetune/       17: a new task, and what becomes of the old ones
effort/         18: an effort dial from a price per token
hierarchy/      19: which role is obeyed
monitor/        20: a monitor that reads the chain of thought
worst_case/     21: a capability that was filtered or refused, and comes back
examples.py     problems of nano as training examples
examples.py     problems of nano as training examples
results.py      the stored results
"""
