"""Instruments that compare two labs, to find out whether and where they differ.

    compare_logits(lab, other)        the change of the logits, for texts of several lengths
    first_difference(lab, other)      the first layer, point and token at which they part
    compare_prompts(lab, other)       the first token that differs in the rendered prompt
    compare_replies(lab, other)       what differs in two replies to the same question
    accuracy(lab, "sum 5 terms")      how many held-out problems a lab solves

Each result prints as a short text. Choose the lengths from the architecture: a wrong window changes
nothing in a text that is shorter than the window, which has 32 tokens in nano.

logits.py    compare_logits        places.py    first_difference
texts.py     compare_prompts and compare_replies
tasks.py     accuracy              example.py   the text that labs are compared on
"""

from oss_lab.course.instruments.example import LENGTHS, QUESTION, example_ids
from oss_lab.course.instruments.logits import LogitChange, LogitChanges, compare_logits
from oss_lab.course.instruments.places import Difference, first_difference
from oss_lab.course.instruments.tasks import Accuracy, accuracy
from oss_lab.course.instruments.texts import Comparison, compare_prompts, compare_replies

__all__ = [
    "LENGTHS",
    "QUESTION",
    "Accuracy",
    "Comparison",
    "Difference",
    "LogitChange",
    "LogitChanges",
    "accuracy",
    "compare_logits",
    "compare_prompts",
    "compare_replies",
    "example_ids",
    "first_difference",
]
