"""Measures how much CPU time other processes used while something was timed (Linux only).

/proc/stat has the busy time of all processors in ticks of 10 ms, and os.times() that of this
process. A sample lasts many ticks, so a share of 8% of a core is detectable.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

MAX_OTHERS = 0.08  # of one core


def require_linux(program: str) -> None:
    """End the program if the busy time of other processes cannot be measured."""
    if not Path("/proc/stat").exists():
        sys.exit(f"{program}: Linux is required, to measure how busy other processes are")


@dataclass(frozen=True)
class Busy:
    """CPU seconds used since the machine started: by all processes, and by this one.

    Its own include those of the processes that it ran and that have ended.
    """

    everyone: float
    own: float

    @classmethod
    def now(cls) -> "Busy":
        # user nice system idle iowait irq softirq steal
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        busy = sum(fields[:3]) + sum(fields[5:8])
        own = os.times()
        children = own.children_user + own.children_system
        return cls(busy / os.sysconf("SC_CLK_TCK"), own.user + own.system + children)

    def others_since(self, before: "Busy", seconds: float) -> float:
        """The share of one core that other processes used, from 0 to the number of cores."""
        others = (self.everyone - before.everyone) - (self.own - before.own)
        return max(0.0, others) / seconds
