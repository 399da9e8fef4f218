"""Lesson 20: a monitor that reads the chain of thought.

measure.py      traces, rewards and tests
data.py         sums with a key in a book that must not be used
rules.py        the monitors, and the rewards of each condition
results.py      the stored result as shares
"""
