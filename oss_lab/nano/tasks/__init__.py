"""The tasks that nano learns, one file per kind; `mix.py` sets how often each is drawn."""

from oss_lab.nano.tasks.problem import Problem, Split, Task, is_held_out

__all__ = ["Problem", "Split", "Task", "is_held_out"]
