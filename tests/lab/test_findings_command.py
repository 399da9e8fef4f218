"""The findings command: which checkpoints are compared, and what it does with an earlier run's
files."""

import json

import pytest

from oss_lab.errors import LabError
from oss_lab.nano.studies.__main__ import parse_comparison, read_earlier

ABOUT = {"n": 4, "seed": 1, "checkpoint": "abc"}


@pytest.mark.parametrize("text", ["nano", "=nano", "name="])
def test_a_compared_checkpoint_has_a_name_and_a_folder(text):
    with pytest.raises(LabError, match="write NAME=FOLDER"):
        parse_comparison(text)


def test_a_name_and_its_checkpoint():
    name, checkpoint = parse_comparison("no balance=nano")
    assert name == "no balance"
    assert checkpoint.config.num_experts == 32


def test_findings_of_an_earlier_run_are_kept(tmp_path):
    file = tmp_path / "findings.json"
    assert read_earlier(file, ABOUT) == {}
    file.write_text(json.dumps({**ABOUT, "calls": [1], "something else": 2}))
    assert read_earlier(file, ABOUT) == {"calls": [1]}


@pytest.mark.parametrize("other", [{"n": 5}, {"seed": 2}, {"checkpoint": "other"}])
def test_findings_of_another_checkpoint_or_draw_are_not_mixed(tmp_path, other):
    file = tmp_path / "findings.json"
    file.write_text(json.dumps(ABOUT | other))
    with pytest.raises(LabError, match=f"another {next(iter(other))}; run all experiments"):
        read_earlier(file, ABOUT)
