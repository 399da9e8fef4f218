"""What a model did, in a folder: for notebooks that show a model which is not at hand.

    from oss_lab.evidence.file import read_evidence
    from oss_lab.evidence.record import record
    record(lab, "evidence/")                      prompts.py's questions, at every effort
    evidence = read_evidence("evidence/")         needs no model
    evidence.effort_curve(), evidence.routes(), evidence.traces[0]["attn.sink_mass"]

prompts.py   what is asked where nothing else is given
bundle.py    what a folder holds
file.py      reading and writing it
record.py    asking, tracing, going on after a kill
tables.py    tidy tables of all replies together
collect.py   traces of a corpus of one's own, such as the atlas of experts reads
"""
