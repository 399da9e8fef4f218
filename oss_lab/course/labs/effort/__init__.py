"""Lesson 18: an effort dial from a price per token.

measure.py      all runs, with their controls
phases.py       fine-tuning that takes the dial away, and steps with prices
dial.py         the measure: the same problems with each effort word
"""
