"""The log of a run, `log.jsonl`, with one line per step."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from oss_lab.checkpoint.atomic import write_text
from oss_lab.errors import LabError
from oss_lab.nano.training.records import parse_fields, read_text

LOG = "log.jsonl"


@dataclass(frozen=True)
class TrainingStep:
    """One line of the log.

    Attributes:
        loss: nats per learned token.
        balance: the load-balancing loss; 1 when all experts are equally busy.
        load: the busiest expert's share relative to an even share, averaged over the layers.
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


def has_steps(file: Path) -> bool:
    """Whether the log exists and is not empty."""
    return file.exists() and file.stat().st_size > 0


def refuse_without_state(file: Path, saved_by: int) -> None:
    """Raise LabError if the log is so long that the run must have saved its state.

    A shorter log is from a run that stopped before it first saved, so starting over loses nothing.
    """
    lines = file.read_bytes().count(b"\n") if file.exists() else 0
    if lines and lines >= saved_by:
        raise LabError(
            f"{file} has {lines} steps, but the folder has no saved state to resume from, and"
            " training would erase the log; choose another folder"
        )


def truncate_log(file: Path, steps: int) -> None:
    """Start the log, or truncate it to the first `steps` steps, which must all be present.

    If the process is killed meanwhile, the old log stays complete.

    Raises:
        LabError: the log is missing, too short or damaged.
    """
    lines = read_complete_lines(file)[:steps] if steps and file.exists() else []
    try:
        found = [parse_step(line, "a line").step for line in lines]
    except LabError:
        found = []
    if found != list(range(steps)):
        raise LabError(
            f"{file} does not have each of the {steps} steps of the saved state next to it;"
            " restore the complete log, or start over in another folder"
        )
    write_text(file, "".join(line + "\n" for line in lines))


def append_line(file: Path, step: TrainingStep) -> None:
    """Append one step to the log."""
    with file.open("a") as appended:
        appended.write(json.dumps(asdict(step)) + "\n")


def read_log(file: Path) -> list[TrainingStep]:
    """Every complete line; a last line that is still being written is ignored.

    Raises:
        LabError: there is no such file, or a line is not a step of this version.
    """
    return [
        parse_step(line, f"{file}, line {n}") for n, line in enumerate(read_complete_lines(file), 1)
    ]


def read_complete_lines(file: Path) -> list[str]:
    """The lines that end in a newline."""
    text = read_text(file)
    return text[: text.rfind("\n") + 1].splitlines()


def parse_step(line: str, where: str) -> TrainingStep:
    """One line of the log.

    Raises:
        LabError: the line is not a step of this version.
    """
    step = TrainingStep(**parse_fields(TrainingStep, line, where))
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
            f"{where} is not a step of a run: it needs numbers, and losses by `setting/task/effort`"
        )
    return step
