"""The evaluation of a trained nano: what it writes, and what it refuses, in its user's words."""

import json

import pytest

from oss_lab.nano.suite import SUITE
from oss_lab.nano.training import evaluate


@pytest.fixture
def checkpoint(untrained_run, monkeypatch):
    """A checkpoint, two short rows of the suite, and the command that evaluates it."""
    rows = {name: SUITE[name] for name in ("list", "small talk")}
    monkeypatch.setattr(evaluate, "SECTIONS", {"suite": rows, "stress": {}})
    monkeypatch.setattr(evaluate, "MAX_TOKENS", 2)
    folder = untrained_run / "checkpoint"
    monkeypatch.setattr("sys.argv", ["evaluate", str(folder), "--problems", "1"])
    yield folder
    for file in (*folder.glob("*.journal"), folder / "evaluation.json"):
        file.unlink(missing_ok=True)


def test_scores_are_written_next_to_the_weights_and_journals_are_removed(checkpoint, capsys):
    evaluate.main()
    report = json.loads((checkpoint / "evaluation.json").read_text())
    assert [(each["name"], each["n"]) for each in report["suite"]] == [
        (name, 1) for name in ("list", "small talk") for _ in range(3)
    ]
    assert not list(checkpoint.glob("*.journal"))
    assert "small talk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("contents", "advice"),
    [
        ("a note", "is not the journal of an evaluation; move it away"),
        ('{"evaluation": {"seed": 7}}\n', "; move it away, or delete it to start over"),
    ],
)
def test_a_foreign_journal_is_named_with_a_remedy_that_applies_here(checkpoint, contents, advice):
    """The command has no --out and no --fresh."""
    journal = evaluate.journal_path(checkpoint, "suite", 1, 1)
    journal.write_text(contents)
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    sentence = str(ended.value.code)
    assert sentence.startswith(f"oss_lab.nano.training.evaluate: {journal} ")
    assert sentence.endswith(advice)
    assert journal.read_text() == contents
