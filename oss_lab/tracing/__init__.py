"""Traces: what a model computes inside, token by token, kept, saved and compared.

recording.py   the taps that keep what was selected
derived.py     quantities that follow from what the forward hands out
run.py         from tokens to a trace
trace.py       a trace, its axes named and each token's place in Harmony beside it
file.py        a trace as a safetensors file
diff.py        where two traces part
cost.py        bytes and seconds, before anything is computed
"""
