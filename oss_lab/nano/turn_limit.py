"""How many questions one conversation with nano can hold, as measured.

`oss_lab.nano.studies.turns` measures the accuracy at each turn and writes it to `findings.json`,
next to the weights. Chat warns from the first turn at which nano gets at least `TOLERATED` fewer
of the questions right than alone, as a share of all questions.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oss_lab.lab import Lab

TOLERATED = 0.1


@dataclass(frozen=True)
class TurnLimit:
    """The measured limit.

    Attributes:
        turns: the number of questions that a conversation holds.
        alone: the accuracy for the same questions, each in its own conversation.
        next, last: the accuracy at the turn after the limit, and at the last one measured.
        last_turn: the number of the last turn measured.
    """

    turns: int
    alone: float
    next: float
    last: float
    last_turn: int

    @property
    def sentence(self) -> str:
        """The limit for users, without a period."""
        return (
            "nano gets worse in a long conversation: it answers"
            f" {self.alone:.0%} of simple questions right alone, {self.next:.0%} as question"
            f" {self.turns + 1}, {self.last:.0%} as question {self.last_turn}"
        )


def find_turn_limit(lab: "Lab") -> TurnLimit | None:
    """The limit of the checkpoint that the lab has loaded; None if it was not measured."""
    file = None if lab.checkpoint is None else lab.checkpoint.folder / "findings.json"
    if file is None or not file.is_file():
        return None
    return compute_turn_limit(json.loads(file.read_text(encoding="utf-8")).get("turns", []))


def compute_turn_limit(turns: list[dict[str, Any]]) -> TurnLimit | None:
    """The limit from the findings about turns; None if no turn loses more than is tolerated."""
    worse = [each for each in turns if each["accuracy"]["difference"] >= TOLERATED]
    if not worse:
        return None
    alone = [each["accuracy"]["first"] for each in turns]
    return TurnLimit(
        turns=worse[0]["turn"] - 1,
        alone=sum(each["count"] for each in alone) / sum(each["n"] for each in alone),
        next=worse[0]["accuracy"]["second"]["value"],
        last=turns[-1]["accuracy"]["second"]["value"],
        last_turn=turns[-1]["turn"],
    )
