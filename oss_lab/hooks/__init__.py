"""Recording and changing what happens inside a forward.

points.py        the table of hook points: names, axes, meaning, cost, what can be changed
selection.py     which points, layers, heads and positions a recording keeps
recording.py     taps that keep a selection while the model runs
derived.py       points that are computed from others
interventions/   small frozen objects that say what is changed, and what applies them
cost.py          bytes and seconds of a trace before anything is computed
tracing.py       from tokens to a trace
collect.py       traces of a whole corpus in a folder
inside.py        all of that as methods of a loaded model: the base class of `Lab`
"""
