"""What nano learns, one file a kind of task; `mix.py` says how often each is drawn."""

from oss_lab.nano.tasks.problem import Problem, Split, Task, is_held_out

__all__ = ["Problem", "Split", "Task", "is_held_out"]
