"""How often a model is right, and how much it thinks for it: `oss-lab eval`.

question.py       what can be asked, and a question of a file
grade.py          when an answer is right
jsonl.py          a person's own questions
aime.py, gpqa.py, mmlu.py       public files of questions; rows.py and choices.py help
run.py            questions to outcomes, in batches
journal.py, resume.py           outcomes kept on disk, so that a stopped run goes on
record.py, prompts.py           replies to fixed prompts and their traces: `oss-lab record`
report.py                       scores, their table and JSON; the figure is `plots.accuracy`
"""
