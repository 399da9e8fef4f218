"""Only questions that the journal lacks are asked, and each outcome is written before it is
yielded."""

import json
from itertools import islice
from typing import Any, cast

import pytest

from oss_lab.evaluation import resume as module
from oss_lab.evaluation.journal import Journal
from oss_lab.evaluation.resume import resume
from oss_lab.evaluation.run import Outcome

OF = {"format": 1}
LIMITS: dict[str, Any] = {"batch": 2, "max_tokens": 8, "seed": 1}
QUESTIONS = cast("Any", ["a", "b", "c", "d"])


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """The indices of the questions asked, with the effort. Every question is answered right."""
    indices = []

    def run(lab, questions, effort, *, batch, max_tokens, seed, done):
        assert {"batch": batch, "max_tokens": max_tokens, "seed": seed} == LIMITS
        for index, question in enumerate(questions):
            if index not in done:
                indices.append((effort, index))
                yield Outcome(index, question, effort, True, "x", 0, 1, 0, "return")

    monkeypatch.setattr(module, "answer_questions", run)
    return indices


def resume_run(journal, effort, **options):
    return resume(journal, cast("Any", None), QUESTIONS, effort, **LIMITS, **options)


def test_each_outcome_is_on_disk_before_it_is_yielded(tmp_path):
    path = tmp_path / "journal"
    with Journal(path, OF) as journal:
        for n, outcome in enumerate(resume_run(journal, "low"), 1):
            lines = path.read_bytes().splitlines()
            assert len(lines) == 1 + n
            assert json.loads(lines[-1])["index"] == outcome.index
            assert journal.outcomes[-1] == outcome


def test_an_interrupted_run_asks_what_is_missing_at_that_effort(tmp_path, asked):
    path = tmp_path / "journal"
    with Journal(path, OF) as journal:
        list(islice(resume_run(journal, "low"), 3))
    asked.clear()
    with Journal(path, OF) as journal:
        assert [each.index for each in resume_run(journal, "low")] == [3]
        assert [each.index for each in resume_run(journal, "high")] == [0, 1, 2, 3]
        assert list(resume_run(journal, "low")) == []
        assert [each.index for each in journal.outcomes_at("low")] == [0, 1, 2, 3]
        assert len(journal.outcomes_at("low", "high")) == len(journal.outcomes) == 8
    assert asked == [("low", 3), *(("high", n) for n in range(4))]


def test_skipped_questions_are_not_asked(tmp_path, asked):
    with Journal(tmp_path / "journal", OF) as journal:
        list(resume_run(journal, "low", left_out={1, 2}))
    assert asked == [("low", 0), ("low", 3)]
