"""The model card of nano: `python -m oss_lab.nano.card.page` writes it from measurements.

page.py              the card and the README's table
findings.py          sections on the studies; findings_inside.py has those on the model's inside
parts.py             tables and numbers as text
"""
