"""The seconds to load the model and compute one token, in a new process, without the imports.

For llama.cpp these are the seconds of a whole run of llama-bench on one token.
"""

import statistics
from collections.abc import Iterator

from oss_lab.bench.child import run_children
from oss_lab.bench.measure import Result, Spread
from oss_lab.bench.setting import Setting


def measure(setting: Setting) -> Iterator[Result]:
    for name, runs in run_children(setting).items():
        others = statistics.median(run.others for run in runs)
        spread = Spread.of([run.seconds for run in runs])
        yield Result("load and one token", name, "s", spread, len(runs), others)
