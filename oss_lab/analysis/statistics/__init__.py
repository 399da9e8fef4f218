"""How sure a figure is, for findings and analyses.

shares.py       counted outcomes: Wilson's interval, and two models on the same problems
paired.py       intervals of the difference of two accuracies
bootstrap.py    means and other figures, over sequences or problems drawn anew
information.py  mutual information beside that of shuffled labels
explained.py    variance that a label explains in sequences not looked at
"""
