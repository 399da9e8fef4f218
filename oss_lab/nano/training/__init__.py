"""How nano is trained: its vocabulary, its data, the loop, the export and the evaluation.

recipe.py       every setting of a run
vocabulary.py   the merges of its tokenizer
data.py         rows of tokens drawn from the tasks
initialize.py   the first weights
quantized.py    experts that are rounded to MXFP4 in the forward
balance.py      the loss that keeps experts equally busy
step.py, optimizers.py, loop.py     one step, what updates the weights, and all steps
state.py, log.py, records.py, machine.py     what a run leaves in its folder
curves.py       the log as a page
smoke.py        whether this machine repeats the first steps of a run bit for bit
export.py       the checkpoint
evaluate.py     the suite on it
"""
