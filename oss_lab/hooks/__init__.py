"""Recording and changing what happens inside a forward.

points.py        the table of hook points: names, axes, meaning, cost, what can be changed
step.py          which tokens go through one forward
forward.py       the hooks of one forward: interventions, then recordings
selection.py     which points, layers, heads and positions a recording keeps
recording.py     keeps a selection while the model runs
derived.py       points that are computed from others
interventions/   small frozen objects that say what is changed, and what applies them
cost.py          bytes of a trace before anything is computed
NAMES.md         ten tasks and the names of all points beside TransformerLens and nnsight
"""
