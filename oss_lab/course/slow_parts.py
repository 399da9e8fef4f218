"""Name the part that makes a reply slow, such as a learner's loop over all experts."""

import time
from collections.abc import Mapping

from oss_lab.course.learner import LearnerPart
from oss_lab.harmony.notices import warn

SLOW = 10.0  # seconds of a reply from which its slowest part is named
SHARE = 0.25  # of these seconds that the parts must have taken together


class Stopwatch:
    """Measures the parts while replies are generated, to name a slow one.

    Time counts between `start` and `stop`, which may be called several times.
    """

    def __init__(self, parts: Mapping[str, LearnerPart]) -> None:
        self.parts = tuple(parts.values())
        self.total = 0.0
        self.spent = [0.0] * len(self.parts)

    def start(self) -> None:
        self.began = time.perf_counter()
        self.before = [part.seconds for part in self.parts]

    def stop(self) -> None:
        self.total += time.perf_counter() - self.began
        for n, part in enumerate(self.parts):
            self.spent[n] += part.seconds - self.before[n]

    def warn_if_slow(self) -> None:
        """Warn about the slowest part, if generation is slow and the parts are a reason for it."""
        if self.total <= SLOW or sum(self.spent) < SHARE * self.total or not self.parts:
            return
        names = [part.part.name for part in self.parts]
        seconds, name = max(zip(self.spent, names, strict=True))
        share = f"{seconds / self.total:.0%} of it in the part {name}"
        warn([f"generation took {self.total:.0f} s, {share}"], UserWarning)
