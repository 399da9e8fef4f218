"""The journal of an evaluation: how an interrupted one resumes, and what is refused."""

import re

import pytest

from oss_lab.errors import LabError
from oss_lab.evaluation.journal import Journal


def evaluation(**changes):
    return {"format": 1, "questions": "abc", "max_tokens": 8} | changes


@pytest.fixture
def ten_outcomes(answering_lab, make_questions, run_evaluation, successor):
    return run_evaluation(answering_lab(successor), make_questions(5), "low") + run_evaluation(
        answering_lab(successor), make_questions(5), "high"
    )


@pytest.fixture
def journal_path(tmp_path, ten_outcomes):
    """The path of a journal with ten outcomes."""
    path = tmp_path / "new" / "outcomes.jsonl"
    with Journal(path, evaluation()) as journal:
        assert journal.outcomes == []
        for outcome in ten_outcomes:
            journal.add(outcome)
    return path


def test_a_journal_keeps_outcomes(journal_path, ten_outcomes):
    before = journal_path.read_bytes()
    with Journal(journal_path, evaluation()) as journal:
        assert journal.outcomes == ten_outcomes
    assert journal_path.read_bytes() == before


def test_outcomes_are_written_immediately(tmp_path, ten_outcomes):
    path = tmp_path / "outcomes.jsonl"
    with Journal(path, evaluation()) as journal:
        for n, outcome in enumerate(ten_outcomes, 2):
            journal.add(outcome)
            assert path.read_bytes().count(b"\n") == n


def test_a_line_truncated_anywhere_is_dropped(journal_path, ten_outcomes):
    ten_outcomes = ten_outcomes[:2]
    whole = b"".join(journal_path.read_bytes().splitlines(keepends=True)[: 1 + len(ten_outcomes)])
    lengths = [m.end() for m in re.finditer(b"\n", whole)]
    for cut in range(len(whole) + 1):
        journal_path.write_bytes(whole[:cut])
        complete = sum(cut >= length for length in lengths)
        with Journal(journal_path, evaluation()) as journal:
            assert journal.outcomes == ten_outcomes[: max(0, complete - 1)]
            for outcome in ten_outcomes[len(journal.outcomes) :]:
                journal.add(outcome)
        assert journal_path.read_bytes() == whole


def test_another_evaluation_is_refused_unless_fresh(journal_path):
    before = journal_path.read_bytes()
    with pytest.raises(LabError, match=r"\(questions and max_tokens differ\).*--fresh"):
        Journal(journal_path, evaluation(questions="x", max_tokens=9))
    with pytest.raises(LabError, match=r"\(new differ\)"):
        Journal(journal_path, evaluation(new=1))
    assert journal_path.read_bytes() == before
    with Journal(journal_path, evaluation(questions="x"), fresh=True) as journal:
        assert journal.outcomes == []
    with Journal(journal_path, evaluation(questions="x")) as journal:
        assert journal.outcomes == []


@pytest.mark.parametrize(
    "first", [b"", b"{}", b"[]", b"1", b'{"evaluation": 1}', b"\xff", b"[" * 9999]
)
@pytest.mark.parametrize("rest", [b"\nmine\n", b"\nmine", b"mine"])
def test_a_file_that_is_not_a_journal_is_not_changed(tmp_path, first, rest):
    """Without a newline too: then it is not a torn line of a journal."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(first + rest)
    with pytest.raises(LabError, match="not the journal of an evaluation"):
        Journal(path, evaluation())
    assert path.read_bytes() == first + rest


def test_a_truncated_first_line_of_another_evaluation_is_not_changed(tmp_path):
    path = tmp_path / "outcomes.jsonl"
    path.write_text('{"evaluation": {"format": 1, "questions": "other')
    with pytest.raises(LabError, match="not the journal of an evaluation"):
        Journal(path, evaluation())
    assert path.read_text().endswith("other")


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-9],
        lambda line: b"",
        lambda line: b"\0" * len(line),
        lambda line: b"[]",
        lambda line: line.replace(b'"index": ', b'"index": -'),
        lambda line: line.replace(b'"right": ', b'"right": 1, "more": '),
        lambda line: line.replace(b'"return"', b'"later"'),
        lambda line: line.replace(b'"low"', b'"huge"'),
        lambda line: line.replace(b'"low"', b"[]"),
        lambda line: line.replace(b'"tokens"', b'"cost"'),
        lambda line: line.replace(b'"final": ', b'"final": 1, "x": '),
    ],
)
def test_a_damaged_line_is_named(journal_path, change):
    lines = journal_path.read_bytes().split(b"\n")
    lines[3] = change(lines[3])
    journal_path.write_bytes(b"\n".join(lines))
    with pytest.raises(LabError, match="line 4 is damaged; start over with --fresh"):
        Journal(journal_path, evaluation())


def test_outcomes_written_twice_count_once(journal_path, ten_outcomes):
    lines = journal_path.read_bytes().splitlines(keepends=True)
    journal_path.write_bytes(b"".join([*lines, *lines[1:]]))
    with Journal(journal_path, evaluation()) as journal:
        assert journal.outcomes == ten_outcomes
