"""The model card of nano: `python -m oss_lab.nano.card.page` generates it from measurements.

page.py              the card, and the table in the project's README
findings.py          the sections on the experiments; findings_inside.py has those on internals,
                     findings_turns.py those on what a conversation contains
parts.py             formats tables, paragraphs and numbers
"""
