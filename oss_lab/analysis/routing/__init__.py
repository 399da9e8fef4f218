"""Analyses of the router's choices over a corpus.

corpus.py        the choices of many sequences as arrays
atlas.py         how much each expert is used, and for which tokens, channels and tasks
baselines.py     how well the token alone predicts its experts, with shuffled tokens as control
coactivation.py  which experts are chosen together more often than their loads explain
paths.py         which other tokens use the same experts
"""
