"""The time until the first token of an answer, as a user waits for it."""

from collections.abc import Iterator

from oss_lab.bench.measure import Result
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks.compare import compare_sides

PROMPT = 100


def measure(setting: Setting) -> Iterator[Result]:
    prompt = setting.make_ids(PROMPT)
    name = f"first token after {PROMPT}"
    yield from compare_sides(setting, name, lambda side: side.generate(prompt, 1), None)
