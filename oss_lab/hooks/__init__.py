"""Records and changes activations inside a forward pass.

points.py        the table of hook points: names, axes, meaning, size, and what can be changed
step.py          which tokens go through one forward pass
forward.py       the hooks of one forward pass: interventions first, then recordings
arguments.py     checks arguments of public functions against their annotations
selection.py     which points, layers, heads and positions are recorded
recording.py     stores a selection while the model runs
derived.py       points that are computed from other points
interventions/   small frozen objects that describe a change, and the code that applies them
cost.py          the size of a trace, computed before it is recorded
NAMES.md         ten tasks and every point's name, compared with TransformerLens and nnsight
"""
