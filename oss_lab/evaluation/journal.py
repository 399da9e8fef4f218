"""Outcomes on disk, so that a stopped evaluation goes on where it was.

The first line says what is evaluated: weights, questions, sampling, limits, and the code that asks
and grades. Each further line is an outcome, written as soon as its batch has ended. A last line
without its newline was being written when the process was killed; it is dropped and its question
asked again. A file whose first line is not such a one, or the beginning of it, is left alone. One
process at a time writes a journal. Efforts are told apart line by line: what was answered at one is
kept when all are asked for.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.digest import checkpoint_digest
from oss_lab.checkpoint.fields import printable
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.evaluation.question import Question
from oss_lab.evaluation.run import STOPS, Outcome
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.harmony.wire import conversation_to_dict
from oss_lab.version import __version__

FORMAT = 1

Fingerprint = Mapping[str, Any]
"""What an evaluation is of: JSON values by name. Two with equal ones may share outcomes."""


def fingerprint(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    sampling: Sampling,
    max_tokens: int,
    seed: int,
) -> Fingerprint:
    """Everything that the outcomes follow from but the effort, which each of them tells."""
    drawn = sampling.temperature > 0
    asked = hashlib.sha256()
    for question in questions:
        prompt = json.dumps(conversation_to_dict(question.prompt(EFFORTS[0])))
        asked.update(f"{question!r}\n{prompt}\n".encode())
    return {
        "format": FORMAT,
        "oss_lab": __version__,
        "code": code_digest(questions),
        "checkpoint": checkpoint_digest(checkpoint),
        "questions": asked.hexdigest(),
        "sampling": {**asdict(sampling), "seed": seed if drawn else None},
        "max_tokens": max_tokens,
    }


def code_digest(questions: Sequence[Question]) -> str:
    """SHA-256 of the source files that ask and grade: this package, and those of the questions.

    A journal keeps whether an answer was right, and the version stays the same while somebody works
    on the grader: without this, marks of the old one would be printed as the new one's.
    """
    packages = {type(question).__module__.rpartition(".")[0] for question in questions}
    digest = hashlib.sha256()
    for package in sorted({__package__, *packages} - {""}):
        files = resources.files(package).iterdir()
        for file in sorted(files, key=lambda each: each.name):
            if file.name.endswith(".py"):
                digest.update(f"\n{package}/{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def default_place(of: Fingerprint) -> Path:
    """A file in the user's cache folder, named by the fingerprint."""
    from platformdirs import user_cache_path

    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    return user_cache_path("oss-lab", appauthor=False) / "eval" / f"{digest[:16]}.jsonl"


class Journal:
    """The outcomes in one file: `outcomes`, those of earlier runs first.

    Args:
        fresh: forget what is there.
        elsewhere, anew: what the caller's user can do about a file of another evaluation, or about
            a damaged one; the end of a sentence.

    Raises:
        LabError: the file belongs to another evaluation, or is damaged.
        OSError: it cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        of: Fingerprint,
        *,
        fresh: bool = False,
        elsewhere: str = "name another folder with --out",
        anew: str = "start over with --fresh",
    ) -> None:
        self.path = path
        self._elsewhere, self._anew = elsewhere, anew
        self.outcomes: list[Outcome] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = not fresh and self._read(of)
        self._file = path.open("a" if begun else "w", encoding="utf-8", newline="\n")
        if not begun:
            self._write({"evaluation": of})

    def add(self, outcome: Outcome) -> None:
        """Write down an outcome at once."""
        self._write(asdict(outcome))
        self.outcomes.append(outcome)

    def at(self, *efforts: Effort) -> list[Outcome]:
        """The outcomes at these efforts."""
        return [each for each in self.outcomes if each.effort in efforts]

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, value: Any) -> None:
        self._file.write(line_of(value))
        self._file.flush()

    def _read(self, of: Fingerprint) -> bool:
        """Take what is there; False if there is nothing to go on from."""
        contents = self.path.read_bytes() if self.path.exists() else b""
        whole = contents[: contents.rfind(b"\n") + 1]
        if not whole:  # nothing there, or killed within the first line
            if not line_of({"evaluation": of}).encode().startswith(contents):
                raise self._foreign()
            return False
        first, *lines = whole[:-1].split(b"\n")
        self._compare(first, of)
        seen = set()
        for number, line in enumerate(lines, 2):
            outcome = self._outcome(number, line)
            if (key := (outcome.effort, outcome.index)) not in seen:
                seen.add(key)
                self.outcomes.append(outcome)
        if len(whole) < len(contents):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        return True

    def _compare(self, line: bytes, of: Fingerprint) -> None:
        try:
            found = json.loads(line)["evaluation"]
            names = [name for name in {**found, **of} if found.get(name) != of.get(name)]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise self._foreign() from None
        if names:
            what = printable(" and ".join(map(str, names)))
            raise LabError(
                f"{self.path} is of another evaluation ({what} differ); {self._elsewhere}, or"
                f" {self._anew}"
            )

    def _foreign(self) -> LabError:
        return LabError(f"{self.path} is no journal of an evaluation; {self._elsewhere}")

    def _outcome(self, number: int, line: bytes) -> Outcome:
        try:
            values = json.loads(line)
            outcome = Outcome(**{each.name: values.pop(each.name) for each in fields(Outcome)})
            counts = (outcome.index, outcome.analysis_tokens, outcome.tokens, outcome.calls)
            sound = (
                not values
                and all(type(count) is int and count >= 0 for count in counts)
                and isinstance(outcome.name, str)
                and outcome.effort in EFFORTS
                and isinstance(outcome.right, bool)
                and (outcome.final is None or isinstance(outcome.final, str))
                and outcome.stop in STOPS
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            sound, outcome = False, None
        if not sound or outcome is None:
            raise LabError(f"{self.path}, line {number} is damaged; {self._anew}")
        return outcome


def line_of(value: Any) -> str:
    """A line of the journal."""
    return json.dumps(value) + "\n"
