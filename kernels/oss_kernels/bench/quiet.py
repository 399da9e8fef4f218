"""Whether other processes had the machine's processors while something was timed (Linux only).

/proc/stat counts every processor's busy time in ticks of 10 ms, os.times() has this process's. A
sample lasts longer than several ticks, so that a share of 8 % of a core can be told.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

MOST = 0.08  # of one core


def require_linux(program: str) -> None:
    """End the program where it could not be told whether the machine was quiet."""
    if not Path("/proc/stat").exists():
        sys.exit(f"{program}: it needs Linux, to tell whether the machine was quiet")


@dataclass(frozen=True)
class Busy:
    """Seconds since the machine started: of all processes, and of this one."""

    everyone: float
    own: float

    @classmethod
    def now(cls) -> "Busy":
        # user nice system idle iowait irq softirq steal
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
        busy = sum(fields[:3]) + sum(fields[5:8])
        own = os.times()
        return cls(busy / os.sysconf("SC_CLK_TCK"), own.user + own.system)

    def others_since(self, before: "Busy", seconds: float) -> float:
        """The share of one core that others had, from 0 to the number of cores."""
        others = (self.everyone - before.everyone) - (self.own - before.own)
        return max(0.0, others) / seconds
