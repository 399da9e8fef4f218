"""Lesson 17: a new task, and what becomes of the old ones.

measure.py      the runs: learning rate, old examples, kinds of matrix
data.py         the new task, and problems of nano's training
experts.py      which experts a run moved
result.py       the stored result, compared in pairs
"""
