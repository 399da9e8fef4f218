"""The router's choices over a corpus.

corpus.py        the choices of many sequences in arrays
atlas.py         how busy each expert is, and with which tokens, channels and tasks
baselines.py     how well the token alone predicts its experts, and shuffled tokens
coactivation.py  which experts are chosen together more often than their loads explain?
paths.py         which other tokens go through the same experts?
"""
