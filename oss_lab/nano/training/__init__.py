"""Training of nano: vocabulary, data, training loop, export and evaluation.

recipe.py       every setting of a run
vocabulary.py   trains the tokenizer
data.py         batches of tokens drawn from the tasks
initialize.py   the initial weights
quantized.py    experts that are rounded to MXFP4 in the forward pass
balance.py      the load-balancing loss of the experts
step.py, optimizers.py, loop.py     one step, the optimizers, and the training loop
state.py, log.py, records.py, machine.py     the files that a run writes
curves.py       the log as a page of figures
smoke.py        checks whether this machine repeats the first steps of a run bit for bit
export.py       writes the checkpoint
evaluate.py     evaluates it on the suite
"""
