"""Lesson 21: what it costs to bring a capability back.

measure.py      all attacks
models.py       the models: unfiltered, filtered, refused
attack.py       the adversary, and what is counted after an attack
results.py      the stored result, and the threshold
"""
