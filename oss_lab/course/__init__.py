"""The course: nano runs on parts that a learner wrote, and on parts that are wrong.

parts.py              the table of the parts: arguments, results, and what each one replaces
specs.py              what a part must return, and the sentence about what it returned instead
learner.py            a learner's function in the place of a part; slow_parts.py names a slow one
byte_pairs.py         a vocabulary that encodes text with a learner's merges
mistakes.py           the table of mistakes: one wrong line each, and a lab that computes with it
wrong_parts.py, wrong_weights.py     how they are made: wrong functions, changed weights
measure_mistakes.py   measures what each mistake does; mistake_results.py reads and prints that
instruments/          compare two labs: logits, first difference, prompts, replies, accuracy
exercise.py           an exercise, and the judge of what a learner wrote; sheets/ has all of them
exercises.py          what a sheet calls: check, hint, ask_nano; write_sheets.py writes the sheets
predictions.py        predict, then run; progress.py stores it; map.py shows the learner's parts
facts.py, ledger.py   facts and claims that bind the numbers in the prose to checks
notebook_files.py     where the notebooks are
doctor.py, report.py  is a room's machine ready, and what has a group done
"""
