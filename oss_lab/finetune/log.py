"""The log of a fine-tuning run, `log.jsonl`, with one line per step."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from oss_lab.checkpoint.atomic import write_text
from oss_lab.errors import LabError
from oss_lab.nano.training.log import LOG, read_complete_lines
from oss_lab.nano.training.records import parse_fields

__all__ = ["LOG", "FinetuneStep", "append_line", "read_log", "truncate_log"]


@dataclass(frozen=True)
class FinetuneStep:
    """One line of the log.

    Attributes:
        loss: nats per learned token, before the step's update.
        learnt_tokens: the tokens that count in the loss.
        tokens: all tokens that were read, without padding.
        gradient_norm: before clipping.
    """

    step: int
    loss: float
    learnt_tokens: int
    tokens: int
    gradient_norm: float
    learning_rate: float
    seconds: float
    tokens_per_second: float


def append_line(file: Path, step: FinetuneStep) -> None:
    """Append one step to the log."""
    with file.open("a", encoding="utf-8") as appended:
        appended.write(json.dumps(asdict(step)) + "\n")


def read_log(file: Path) -> list[FinetuneStep]:
    """Every complete line.

    Raises:
        LabError: there is no such file, or a line is not a step of this version.
    """
    return [
        FinetuneStep(**parse_fields(FinetuneStep, line, f"{file}, line {n}"))
        for n, line in enumerate(read_complete_lines(file), 1)
    ]


def truncate_log(file: Path, steps: int) -> list[FinetuneStep]:
    """Start the log, or cut it to its first `steps` steps, which it must have; return them.

    Raises:
        LabError: the log is missing, too short or damaged.
    """
    kept = read_log(file)[:steps] if steps else []
    if [each.step for each in kept] != list(range(steps)):
        raise LabError(
            f"{file} does not have each of the {steps} steps of the saved state next to it;"
            " restore the complete log, or start over in another folder"
        )
    write_text(file, "".join(json.dumps(asdict(each)) + "\n" for each in kept))
    return kept
