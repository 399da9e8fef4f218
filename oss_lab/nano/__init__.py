"""How gpt-oss-nano was trained, and what was measured about it.

tasks/         the tasks it learns: one file per kind of problem
training/      vocabulary, recipe, training loop, export: `oss-lab train`
suite.py       the rows of its evaluation, drawn from the tasks: `oss-lab eval nano`
studies/       experiments on the trained model: `python -m oss_lab.nano.studies`
card/          generates its model card from the measurements
gallery.py     example prompts that show what it can do
calculator.py  the tool that it learned to call
turn_limit.py  how many questions a conversation holds
prompts.py     the prompts that `oss-lab record` uses for it

Weights, vocabulary, log and measurements are in `oss_lab/assets/nano/`.
"""
