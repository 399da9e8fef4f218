"""Store outcomes on disk, so a stopped evaluation can resume.

The first line describes the evaluation: weights, questions, sampling, limits, and the code that
asks and grades. Every other line is one outcome, written as soon as its batch has finished. A last
line without a newline is incomplete because the process was killed; it is dropped, and its question
is asked again. A file that does not start with the first line of a journal is never changed. Only
one process at a time may write a journal. Each outcome records its effort, so the answers at one
effort are kept when you later ask for all efforts.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.digest import checkpoint_digest
from oss_lab.checkpoint.fields import make_printable
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError
from oss_lab.evaluation.question import Question
from oss_lab.evaluation.run import STOPS, Outcome
from oss_lab.harmony.events import DiagnosticKind
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.harmony.wire import conversation_to_dict
from oss_lab.version import __version__

FORMAT = 1

Fingerprint = Mapping[str, Any]
"""What an evaluation measures: JSON values by name. Equal fingerprints may share outcomes."""


def build_fingerprint(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    sampling: Sampling,
    max_tokens: int,
    seed: int,
) -> Fingerprint:
    """Everything that determines the outcomes, except the effort, which each outcome records."""
    is_random = sampling.temperature > 0
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
        "sampling": {**asdict(sampling), "seed": seed if is_random else None},
        "max_tokens": max_tokens,
    }


def code_digest(questions: Sequence[Question]) -> str:
    """SHA-256 of the source files that ask and grade: this package and those of the questions.

    A journal stores whether an answer was right. The package's version stays the same while you
    edit the grader, so without this digest old grades would be reported as new ones.
    """
    packages = {type(question).__module__.rpartition(".")[0] for question in questions}
    digest = hashlib.sha256()
    for package in sorted({__package__, *packages} - {""}):
        files = resources.files(package).iterdir()
        for file in sorted(files, key=lambda each: each.name):
            if file.name.endswith(".py"):
                digest.update(f"\n{package}/{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def default_path(of: Fingerprint) -> Path:
    """A file in the user's cache folder whose name is a hash of the fingerprint."""
    from platformdirs import user_cache_path

    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    return user_cache_path("oss-lab", appauthor=False) / "eval" / f"{digest[:16]}.jsonl"


class Journal:
    """The outcomes in one file. `outcomes` lists them, those of earlier runs first.

    Args:
        fresh: discard the outcomes of earlier runs.
        other_file_hint: what the user can do if the file belongs to another evaluation. It ends
            the error message.
        restart_hint: what the user can do if the file is damaged. It ends the error message.

    Raises:
        LabError: the file belongs to another evaluation, or is damaged.
        OSError: the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        of: Fingerprint,
        *,
        fresh: bool = False,
        other_file_hint: str = "name another folder with --out",
        restart_hint: str = "start over with --fresh",
    ) -> None:
        self.path = path
        self._other_file_hint, self._restart_hint = other_file_hint, restart_hint
        self.outcomes: list[Outcome] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        resumes = not fresh and self._read(of)
        self._file = path.open("a" if resumes else "w", encoding="utf-8", newline="\n")
        if not resumes:
            self._write({"evaluation": of})

    def add(self, outcome: Outcome) -> None:
        """Append an outcome to the file immediately."""
        self._write(asdict(outcome))
        self.outcomes.append(outcome)

    def outcomes_at(self, *efforts: Effort) -> list[Outcome]:
        """The outcomes at these efforts."""
        return [each for each in self.outcomes if each.effort in efforts]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, value: Any) -> None:
        self._file.write(format_line(value))
        self._file.flush()

    def _read(self, of: Fingerprint) -> bool:
        """Read the outcomes of earlier runs; False if the file has no complete first line."""
        contents = self.path.read_bytes() if self.path.exists() else b""
        whole = contents[: contents.rfind(b"\n") + 1]
        if not whole:  # no file, or the process was killed while it wrote the first line
            if not format_line({"evaluation": of}).encode().startswith(contents):
                raise self._foreign_file_error()
            return False
        first, *lines = whole[:-1].split(b"\n")
        self._compare(first, of)
        seen = set()
        for number, line in enumerate(lines, 2):
            outcome = self._parse_outcome(number, line)
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
            raise self._foreign_file_error() from None
        if names:
            what = make_printable(" and ".join(map(str, names)))
            raise LabError(
                f"{self.path} belongs to another evaluation ({what} differ);"
                f" {self._other_file_hint}, or {self._restart_hint}"
            )

    def _foreign_file_error(self) -> LabError:
        return LabError(f"{self.path} is not the journal of an evaluation; {self._other_file_hint}")

    def _parse_outcome(self, number: int, line: bytes) -> Outcome:
        try:
            values = json.loads(line)
            outcome = Outcome(**{each.name: values.pop(each.name) for each in fields(Outcome)})
            counts = (outcome.index, outcome.analysis_tokens, outcome.tokens, outcome.calls)
            reported = outcome.diagnostics
            is_valid = (
                not values
                and all(type(count) is int and count >= 0 for count in counts)
                and all(type(reported[kind]) is int for kind in map(DiagnosticKind, reported))
                and isinstance(outcome.name, str)
                and outcome.effort in EFFORTS
                and isinstance(outcome.right, bool)
                and (outcome.final is None or isinstance(outcome.final, str))
                and outcome.stop in STOPS
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            is_valid, outcome = False, None
        if not is_valid or outcome is None:
            raise LabError(f"{self.path}, line {number} is damaged; {self._restart_hint}")
        return outcome


def format_line(value: Any) -> str:
    """A JSON value as one line of the journal."""
    return json.dumps(value) + "\n"
