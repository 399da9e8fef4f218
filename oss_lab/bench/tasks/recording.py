"""What it costs to record the default points while decoding: the extra time, in percent.

Measured against the same rounds with nothing recorded; low and high are a 95% bootstrap interval.
`oss_lab.bench.overhead` measures other selections, and prefill.
"""

from collections.abc import Iterator

from oss_lab.bench.measure import OURS, Result, Spread
from oss_lab.bench.recording import NOTHING, RECORDED, make_tasks, measure_costs
from oss_lab.bench.setting import Setting

ROUNDS = 30
NAMES = ("nothing again", "tier 1", "tier 1 without logits")


def measure(setting: Setting) -> Iterator[Result]:
    decoding = next(make_tasks(setting.make_ids(1000)))
    recorded = {name: RECORDED[name] for name in (NOTHING, *NAMES)}
    for cost in measure_costs(setting.engines, decoding, ROUNDS, recorded):
        if cost.recorded == NOTHING:
            continue
        spread = Spread(*(100 * each for each in (cost.over, *cost.interval)))
        name = f"recording {cost.recorded}"
        yield Result(name, OURS, "%", spread, cost.rounds, cost.others)
