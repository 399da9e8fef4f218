"""What can be asked of a model once everything inside can be seen and changed.

counterfactual.py   what if one expert of one token had not spoken, or another in its place?
attribution.py      how much each head and expert slot adds to one token's logit
commitment.py       what would the answer be, had the thinking ended here?
effort.py           one question at every effort: tokens by channel, experts by layer
branch.py           a tree of what could have been said: edit a token, and go on from there
lens.py             what each layer would predict if it were the last
probe.py            what can be read linearly from a residual stream, a layer at a time
gradients.py        which tokens a prediction rests on: gradients, along a line or at a point
sinks.py            what each head's sink takes, where, and what it depends on
reach.py            by which layers information could come from one position to another, and does
patching.py         values of another run put in, layer by position or head: where does it turn?

sink_behaviour.py   idle, seldom, gated by position or by content: what a sink depends on
patched_rows.py     a batch of one sequence, each row with other values put in
explained.py        variance that a label explains in sequences not looked at
resampling.py       intervals of means over sequences
"""
