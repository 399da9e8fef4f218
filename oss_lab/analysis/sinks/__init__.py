"""What attention sinks do over a corpus.

report.py    how much attention each head's sink takes, and where
behavior.py  what that depends on: idle, seldom, gated by position or by content
"""
