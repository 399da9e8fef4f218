"""What can be asked of a model once everything inside can be seen and changed.

counterfactual.py      what if one expert of one token had not spoken, or another in its place?
attribution.py         how much each head and expert slot adds to one token's logit
commitment.py          what would the answer be, had the thinking ended here?
effort.py              one question at every effort: tokens by channel, experts by layer
routing_corpus.py      the choices of many sequences in arrays, and intervals over sequences
atlas.py               how busy each expert is, and with which tokens, channels and tasks
routing_baselines.py   how well the token alone predicts its experts, and shuffled tokens
coactivation.py        which experts are chosen together more often than their loads explain?
paths.py               which other tokens go through the same experts?
"""
