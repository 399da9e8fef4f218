"""What can be asked of a model once everything inside can be seen and changed.

Of one prediction:
    attribution.py        how much each head and expert slot adds to one token's logit
    counterfactual.py     what if an expert had not spoken, or the next best in its place?
    gradients.py          which tokens it rests on: gradients at a point, or along a line
    point_gradients.py    the same at several points at once, labeled like a trace
    lens.py               what each layer would predict if it were the last
Of one reply:
    branch.py             a tree of what could have been said: edit a token, and go on from there
    branch_node.py        a stretch of it, and under which interventions it was computed
    branch_trace.py       what was computed there, read again, and where two nodes part
    commitment.py         what would the answer be, had the thinking ended here?
    effort.py             one question at every effort: tokens by channel, experts by layer
Of two positions or sequences:
    patching.py           values of another run put in, layer by position or head
    patched_rows.py       a batch of one sequence, each row with other values put in
    reach.py              by which layers information could come from one position to another
Of a corpus:
    collect.py            traces of every prompt in a folder; resumes an interrupted run
    probe.py              what can be read linearly from a residual stream, a layer at a time
    routing/              the router's choices: an atlas of experts, baselines, pairs, paths
    sinks/                what each head's sink takes, where, and what it depends on
Of any of these:
    tracing.py            from requests to traces
    forwards.py           forwards over a cache, under the interventions in force
Of any figure:
    statistics/           intervals, information and explained variance
"""
