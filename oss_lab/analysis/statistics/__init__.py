"""Intervals and other measures of uncertainty, for analyses and studies.

shares.py       counted outcomes: Wilson's interval, and two models on the same problems
paired.py       intervals of the difference of two accuracies
bootstrap.py    intervals of means and other statistics, from resampled sequences or problems
information.py  mutual information, compared with that of shuffled labels
explained.py    variance that a label explains in held-out sequences
"""
