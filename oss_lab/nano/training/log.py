"""The log of a run, `log.jsonl`: what each step did, a line a step."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from oss_lab.checkpoint.atomic import write_text
from oss_lab.errors import LabError
from oss_lab.nano.training.records import fields, read_text

LOG = "log.jsonl"


@dataclass(frozen=True)
class Step:
    """One line of the log.

    Attributes:
        loss: nats per learned token.
        balance: the balance loss, 1 when all experts are equally busy.
        load: the busiest expert's share over an even one, averaged over the layers.
        groups: the loss by `setting/task/effort`.
    """

    step: int
    loss: float
    balance: float
    load: float
    learnt_tokens: int
    gradient_norm: float
    seconds: float
    groups: dict[str, float]


def is_begun(file: Path) -> bool:
    """Whether there is a log with anything in it."""
    return file.exists() and file.stat().st_size > 0


def refuse_without_state(file: Path, saved_by: int) -> None:
    """Refuse a log that is longer than a run gets before it first saves its state.

    A shorter one is of a run that was stopped before: nothing of it is lost by beginning again.
    """
    lines = file.read_bytes().count(b"\n") if file.exists() else 0
    if lines and lines >= saved_by:
        raise LabError(
            f"{file} tells of {lines} steps, but their state is not in the folder, so that training"
            " cannot go on and would erase it; choose another folder"
        )


def keep_lines(file: Path, steps: int) -> None:
    """Begin the log, or cut it back to the first steps, all of which have to be there.

    A kill in between loses nothing.

    Raises:
        LabError: the log is missing, ends too early or is damaged.
    """
    lines = whole_lines(file)[:steps] if steps and file.exists() else []
    try:
        found = [step_of(line, "a line").step for line in lines]
    except LabError:
        found = []
    if found != list(range(steps)):
        raise LabError(
            f"{file} does not have each of the {steps} steps of the state beside it; put the whole"
            " log back, or begin anew in another folder"
        )
    write_text(file, "".join(line + "\n" for line in lines))


def append_line(file: Path, step: Step) -> None:
    """Write one step behind the others."""
    with file.open("a") as appended:
        appended.write(json.dumps(asdict(step)) + "\n")


def read_log(file: Path) -> list[Step]:
    """Every whole line; a last one that is still being written is left out.

    Raises:
        LabError: there is no such file, or a line is no step of this version.
    """
    return [step_of(line, f"{file}, line {n}") for n, line in enumerate(whole_lines(file), 1)]


def whole_lines(file: Path) -> list[str]:
    """The lines that end in a newline."""
    text = read_text(file)
    return text[: text.rfind("\n") + 1].splitlines()


def step_of(line: str, where: str) -> Step:
    """One line of the log.

    Raises:
        LabError: it is no step of this version.
    """
    step = Step(**fields(Step, line, where))
    whole = (step.step, step.learnt_tokens)
    numbers = (step.loss, step.balance, step.load, step.gradient_norm, step.seconds)
    groups = step.groups if isinstance(step.groups, dict) else {}
    if not (
        all(type(value) is int and value >= 0 for value in whole)
        and all(type(value) in (int, float) for value in (*numbers, *groups.values()))
        and groups
        and all(name.count("/") == 2 for name in groups)
    ):
        raise LabError(
            f"{where} is no step of a run: it needs numbers, and losses by `setting/task/effort`"
        )
    return step
