"""The journal of an evaluation: what a stopped one goes on from, and what it refuses."""

import re

import pytest

from oss_lab.errors import LabError
from oss_lab.evaluation.journal import Journal


def evaluation(**changes):
    return {"format": 1, "questions": "abc", "max_tokens": 8} | changes


@pytest.fixture
def some(answering_lab, asked, outcomes, successor):
    return outcomes(answering_lab(successor), asked(5), "low") + outcomes(
        answering_lab(successor), asked(5), "high"
    )


@pytest.fixture
def written(tmp_path, some):
    """A journal with ten outcomes."""
    path = tmp_path / "new" / "outcomes.jsonl"
    with Journal(path, evaluation()) as journal:
        assert journal.outcomes == []
        for outcome in some:
            journal.add(outcome)
    return path


def test_a_journal_keeps_outcomes(written, some):
    before = written.read_bytes()
    with Journal(written, evaluation()) as journal:
        assert journal.outcomes == some
    assert written.read_bytes() == before


def test_outcomes_are_on_disk_at_once(tmp_path, some):
    path = tmp_path / "outcomes.jsonl"
    with Journal(path, evaluation()) as journal:
        for n, outcome in enumerate(some, 2):
            journal.add(outcome)
            assert path.read_bytes().count(b"\n") == n


def test_a_line_torn_anywhere_is_dropped(written, some):
    some = some[:2]
    whole = b"".join(written.read_bytes().splitlines(keepends=True)[: 1 + len(some)])
    lengths = [m.end() for m in re.finditer(b"\n", whole)]
    for cut in range(len(whole) + 1):
        written.write_bytes(whole[:cut])
        complete = sum(cut >= length for length in lengths)
        with Journal(written, evaluation()) as journal:
            assert journal.outcomes == some[: max(0, complete - 1)]
            for outcome in some[len(journal.outcomes) :]:
                journal.add(outcome)
        assert written.read_bytes() == whole


def test_another_evaluation_is_refused_unless_fresh(written):
    before = written.read_bytes()
    with pytest.raises(LabError, match=r"\(questions and max_tokens differ\).*--fresh"):
        Journal(written, evaluation(questions="x", max_tokens=9))
    with pytest.raises(LabError, match=r"\(new differ\)"):
        Journal(written, evaluation(new=1))
    assert written.read_bytes() == before
    with Journal(written, evaluation(questions="x"), fresh=True) as journal:
        assert journal.outcomes == []
    with Journal(written, evaluation(questions="x")) as journal:
        assert journal.outcomes == []


@pytest.mark.parametrize(
    "first", [b"", b"{}", b"[]", b"1", b'{"evaluation": 1}', b"\xff", b"[" * 9999]
)
@pytest.mark.parametrize("rest", [b"\nmine\n", b"\nmine", b"mine"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, first, rest):
    """Without a newline too: it is no torn line of ours."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(first + rest)
    with pytest.raises(LabError, match="no journal of an evaluation"):
        Journal(path, evaluation())
    assert path.read_bytes() == first + rest


def test_a_torn_first_line_of_another_evaluation_is_left_alone(tmp_path):
    path = tmp_path / "outcomes.jsonl"
    path.write_text('{"evaluation": {"format": 1, "questions": "other')
    with pytest.raises(LabError, match="no journal of an evaluation"):
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
def test_a_damaged_line_is_named(written, change):
    lines = written.read_bytes().split(b"\n")
    lines[3] = change(lines[3])
    written.write_bytes(b"\n".join(lines))
    with pytest.raises(LabError, match="line 4 is damaged; start over with --fresh"):
        Journal(written, evaluation())


def test_outcomes_written_twice_count_once(written, some):
    lines = written.read_bytes().splitlines(keepends=True)
    written.write_bytes(b"".join([*lines, *lines[1:]]))
    with Journal(written, evaluation()) as journal:
        assert journal.outcomes == some
