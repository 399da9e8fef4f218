"""The course: nano runs on parts that a learner wrote.

parts.py       the table of the parts: what each one receives and returns, and what it replaces
specs.py       what a part must return, and the sentence about what it returned instead
learner.py     a learner's function in the place of a part
byte_pairs.py  a vocabulary that encodes text with a learner's merges
"""
