"""Lesson 19: which role is obeyed.

measure.py      conflicts of every pair of roles, before and after training
data.py         rules in several roles, and which of them should win
prompts.py      each rule in the message of its role
models.py       training examples, and the models that learn from them
known.py        the rule that nano knows already
attacks.py      roles, places and headings taken apart; rules in a tool's output
kinds.py        conflicts by kind of rule
tables.py       the tables of the stored counts
"""
