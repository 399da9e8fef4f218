"""The tasks of the benchmark, by name, in the order in which they run.

A task is a function from a setting to its results. Those that measure a process of their own come
first, before this one holds any weights.
"""

from collections.abc import Callable, Iterator

from oss_lab.bench.measure import Result
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks import (
    batch,
    context,
    counterfactual,
    decode,
    first_token,
    generate,
    load,
    memory,
    prefill,
    recording,
    stream,
)

Task = Callable[[Setting], Iterator[Result]]
TASKS: dict[str, Task] = {
    "load": load.measure,
    "memory": memory.measure,
    "decode": decode.measure,
    "generate": generate.measure,
    "stream": stream.measure,
    "prefill": prefill.measure,
    "first-token": first_token.measure,
    "batch": batch.measure,
    "context": context.measure,
    "recording": recording.measure,
    "counterfactual": counterfactual.measure,
}
