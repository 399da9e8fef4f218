"""The course: nano runs on parts that a learner wrote.

parts.py     the table of the parts: what each one receives and returns, and what it replaces
learner.py   a learner's function in the place of a part, with checks of what it returns
"""
