"""The peak of memory of a process that loads the model, reads a prompt and decodes.

The rows above the interpreter leave out what Python and its libraries need without a model.
"""

import statistics
from collections.abc import Iterator

from oss_lab.bench.child import NEW, PROMPT, run_children
from oss_lab.bench.measure import Result, Spread
from oss_lab.bench.setting import Setting

MIB = 2**20


def measure(setting: Setting) -> Iterator[Result]:
    what = f"peak memory, {PROMPT + NEW} tokens"
    for name, runs in run_children(setting).items():
        others = statistics.median(run.others for run in runs)
        spread = Spread.of([run.peak / MIB for run in runs])
        yield Result(what, name, "MiB", spread, len(runs), others)
        above = Spread.of([(run.peak - run.interpreter) / MIB for run in runs])
        yield Result("of it above the interpreter", name, "MiB", above, len(runs), others)
