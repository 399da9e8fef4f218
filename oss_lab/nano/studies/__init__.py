"""Experiments on a trained nano, one file per experiment, each with a control.

`python -m oss_lab.nano.studies FOLDER` runs them all and writes `findings.json`.
"""
