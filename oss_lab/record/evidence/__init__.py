"""A recording of a model's replies, for notebooks about a model that is not on this machine.

    from oss_lab.evaluation.record import record
    from oss_lab.record.evidence.file import read_evidence
    record(lab, "evidence/", prompts)             every prompt at every effort
    evidence = read_evidence("evidence/")         needs no model
    evidence.effort_curve(), evidence.routes(), evidence.traces[0]["attn.sink_mass"]

bundle.py    the contents of a folder
file.py      reading and writing it
tables.py    tidy tables over all replies
"""
