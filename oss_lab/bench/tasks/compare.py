"""The same work on every side, in turn."""

from collections.abc import Callable, Iterator

from oss_lab.bench.measure import Result, summarize, take_turns
from oss_lab.bench.setting import Setting
from oss_lab.bench.sides import Side, Timed


def compare_sides(
    setting: Setting, task: str, prepare: Callable[[Side], Timed | None], tokens: int | None
) -> Iterator[Result]:
    """One result per side that can do it. In tokens per second, or milliseconds without tokens."""
    made = {side.name: prepare(side) for side in setting.sides}
    timed = {name: work for name, work in made.items() if work is not None}
    for name, runs in take_turns(timed, setting.repeats, task).items():
        yield summarize(task, name, runs, tokens=tokens)
