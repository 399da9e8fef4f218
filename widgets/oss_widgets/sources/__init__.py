"""Where views get their numbers in a notebook; `js/source/source.js` has the interface.

kernel.py           the connection: serves the requests of a view, and can cancel them
worker.py           the thread that does the work
lab.py              a source that asks a loaded model; stored.py: a trace or the caller's tokens
run.py              one sequence of tokens, continued and forked over a KV cache
stored_run.py       one that no model continues
recording.py        what is recorded of a run
generating.py       its tokens, sent as they come
analyses.py         analyses by name; microscope.py: one MXFP4 block
interventions.py    interventions as the views write them
reproduce.py        Python code that makes a run again
messages.py         how all of this looks in a message
"""
