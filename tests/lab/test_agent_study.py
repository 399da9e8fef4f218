"""The study of dropped reasoning in the agent loop agrees with the one in batches."""

import json
from random import Random

import pytest

from oss_lab.analysis.statistics.shares import Paired
from oss_lab.nano.studies import tool_loop
from oss_lab.nano.studies.dropped import EFFORT, answer_batch, grade_conversations
from oss_lab.nano.studies.problems import draw_problems
from oss_lab.nano.studies.tool_loop import (
    format_share,
    format_table,
    has_called_all,
    run_problem,
    study_tool_loop,
)
from oss_lab.nano.tasks.settings import make_look_up_tool
from oss_lab.nano.tasks.tool_sum import ToolSum


def test_the_agent_gives_the_answers_of_the_batch_study(nano):
    problems = draw_problems(ToolSum(3), 4, Random("1/dropped/3"), make_look_up_tool)
    for drop in (False, True):
        runs = [run_problem(nano, each, "medium", drop=drop) for each in problems]
        assert [run.prompt for run in runs] == [each.prompt("medium") for each in problems]
        pairs = list(zip(problems, runs, strict=True))
        right = [problem.is_right(run.conversation.messages) for problem, run in pairs]
        assert right == answer_batch(nano, problems, keep=not drop)
        assert drop or all(map(has_called_all, problems, runs))


@pytest.mark.slow
def test_the_stored_row_of_three_calls_is_recomputed(nano):
    """The lesson on tools draws the stored counts, which are those of the batch study."""
    stored = json.loads((nano.checkpoint.folder / "findings.json").read_text("utf-8"))
    (row,) = (each for each in stored["dropped"] if each["calls"] == 3)
    assert (row["effort"], row["seed"]) == (EFFORT, 1)
    n, random = row["accuracy"]["first"]["n"], Random("1/dropped/3")
    problems = draw_problems(ToolSum(3), n, random, make_look_up_tool)
    kept, dropped = (grade_conversations(nano, problems, keep) for keep in (True, False))
    found = Paired.of(kept, dropped)
    assert found.first.count == row["accuracy"]["first"]["count"]
    assert found.second.count == row["accuracy"]["second"]["count"]
    assert found.only_second == row["accuracy"]["only_second"]


def test_a_study_is_a_table_with_intervals(nano):
    found = study_tool_loop(nano, 2, seed=1, counts=(2,))
    assert [(each.calls, each.accuracy.first.n) for each in found] == [(2, 2)]
    table = format_table(found)
    assert format_share(found[0].accuracy.first) in table
    assert table.splitlines()[1].startswith("    2  medium    2  100.0% [34.2, 100.0]")


@pytest.mark.parametrize("arguments", [["nano", "--n", "0"], ["nano", "--counts", "1"]])
def test_a_study_that_makes_no_sense_is_refused(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tool_loop", *arguments])
    with pytest.raises(SystemExit) as caught:
        tool_loop.main()
    assert caught.value.code == 2
    assert "--counts 2 or more" in capsys.readouterr().err
