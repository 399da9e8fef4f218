"""The log of a run, `log.jsonl`: what each step did, a line a step."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from oss_lab.train.records import fields, read_text

LOG = "log.jsonl"


@dataclass(frozen=True)
class Step:
    """One line of the log.

    Attributes:
        loss: nats per learnt token.
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


def keep_lines(file: Path, steps: int) -> None:
    """Begin the log, or cut it back to the first steps."""
    lines = file.read_text().splitlines()[:steps] if steps else []
    file.write_text("".join(line + "\n" for line in lines))


def append_line(file: Path, step: Step) -> None:
    """Write one step behind the others."""
    with file.open("a") as appended:
        appended.write(json.dumps(asdict(step)) + "\n")


def read_log(file: Path) -> list[Step]:
    """Every whole line; a last one that is still being written is left out.

    Raises:
        LabError: there is no such file, or a line is no step of this version.
    """
    text = read_text(file)
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [Step(**fields(Step, line, f"{file}, line {n}")) for n, line in enumerate(lines, 1)]
