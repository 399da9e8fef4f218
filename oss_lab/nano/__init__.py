"""How gpt-oss-nano was made, and what is known of it.

tasks/       what it learns: a file for each kind of problem
training/    vocabulary, recipe, loop, export: `oss-lab train`
suite.py     the rows of its evaluation, drawn from the tasks: `oss-lab eval nano`
studies/     one-off experiments on the trained model: `python -m oss_lab.nano.studies`
card/        its model card, written from what the above measured
gallery.py   prompts that show what it can do
prompts.py   what `oss-lab record` asks it

Weights, vocabulary, log and measurements are in `oss_lab/assets/nano/`.
"""
