"""The command of the findings: which checkpoints are compared, and what an earlier run leaves."""

import json

import pytest

from oss_lab.errors import LabError
from oss_lab.nano.studies.__main__ import earlier, named

ABOUT = {"n": 4, "seed": 1, "checkpoint": "abc"}


@pytest.mark.parametrize("text", ["nano", "=nano", "name="])
def test_a_compared_checkpoint_has_a_name_and_a_folder(text):
    with pytest.raises(LabError, match="write NAME=FOLDER"):
        named(text)


def test_a_name_and_its_checkpoint():
    name, checkpoint = named("no balance=nano")
    assert name == "no balance"
    assert checkpoint.config.num_experts == 32


def test_an_earlier_run_leaves_what_it_found(tmp_path):
    file = tmp_path / "findings.json"
    assert earlier(file, ABOUT) == {}
    file.write_text(json.dumps({**ABOUT, "calls": [1], "something else": 2}))
    assert earlier(file, ABOUT) == {"calls": [1]}


@pytest.mark.parametrize("other", [{"n": 5}, {"seed": 2}, {"checkpoint": "other"}])
def test_findings_of_another_checkpoint_or_draw_are_not_mixed(tmp_path, other):
    file = tmp_path / "findings.json"
    file.write_text(json.dumps(ABOUT | other))
    with pytest.raises(LabError, match=f"another {next(iter(other))}; measure everything"):
        earlier(file, ABOUT)
