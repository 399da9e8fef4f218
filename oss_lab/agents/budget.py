"""What one run may use: calls, generated tokens and seconds. Plain data."""

import math
from dataclasses import dataclass

from oss_lab.errors import LabError


@dataclass(frozen=True)
class Budget:
    """The limits of a run; None is no limit.

    Attributes:
        calls: tool calls, malformed ones included. The model may still answer after the last one.
        tokens: generated tokens in all replies of the run. The reply that reaches it is cut there.
        seconds: wall time. A reply is cut between two tokens. A tool that is already running is
            not interrupted; the run ends when it returns.
    """

    calls: int | None = 16
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("calls", 0), ("tokens", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise LabError(
                    f"{name} of the budget is {value!r}; use an integer, {least} or more, or None"
                )
        seconds = self.seconds
        if seconds is not None and not (is_number(seconds) and seconds > 0):
            raise LabError(
                f"seconds of the budget is {seconds!r}; use a number above 0, or None for no limit"
            )


def is_number(value: object) -> bool:
    """Whether this is a finite number, not a boolean."""
    return type(value) in (int, float) and math.isfinite(value)  # pyright: ignore[reportArgumentType]
