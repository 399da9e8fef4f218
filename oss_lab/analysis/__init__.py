"""Analyses of a prediction, a reply or a corpus, from the model's internal values.

One prediction:
    attribution.py        how much each head and expert slot adds to one token's logit
    counterfactual.py     the effect of ablating one expert, or of replacing it by the next best
    gradients.py          which tokens a prediction depends on: (integrated) gradients
    point_gradients.py    gradients at several points, labeled like a trace
    lens.py               what each layer would predict if it were the last
One reply:
    branch.py             a tree of alternative continuations: edit a token and continue
    branch_node.py        one span of such a tree, and its interventions
    branch_trace.py       the trace of a node, and the differences between two nodes
    commitment.py         what would the answer be if the thinking ended here?
    effort.py             one question at every effort: tokens by channel, experts by layer
Two positions or sequences:
    patching.py           values of another run patched in, by layer and position or head
    patched_rows.py       a batch of copies of one sequence, each row patched differently
    reach.py              which layers can move information from one position to another
A corpus:
    collect.py            traces of every prompt in a folder; resumes an interrupted run
    probe.py              linear probes of a residual stream, layer by layer
    routing/              the router's choices: an atlas of experts, baselines, pairs, paths
    sinks/                how much attention each sink takes, where, and what it depends on
Shared parts:
    tracing.py            runs requests and builds their traces
    forwards.py           forward passes over a cache, under the active interventions
    statistics/           intervals, information and explained variance
"""
