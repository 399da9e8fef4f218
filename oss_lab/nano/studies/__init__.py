"""What is found inside a trained nano, one file an experiment, each with its control.

`python -m oss_lab.nano.studies FOLDER` measures them all and writes `findings.json`.
"""
