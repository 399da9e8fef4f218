"""Measure how often a model answers correctly, and how much it thinks first: `oss-lab eval`.

question.py       the interface of a question, and questions read from a file
grade.py          decides whether an answer is right
jsonl.py          reads your own questions
aime.py, gpqa.py, mmlu.py       read public benchmark files, with rows.py and choices.py
run.py            asks questions in batches and yields one outcome per question
journal.py, resume.py           store outcomes on disk, so a stopped run can resume
record.py, prompts.py           record replies to fixed prompts with their traces: `oss-lab record`
report.py                       scores as a table and as JSON; the figure is `plots.accuracy`
"""
