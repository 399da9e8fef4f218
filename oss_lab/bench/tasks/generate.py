"""The program's own loop, which also reads the prompt, samples and stops."""

from collections.abc import Iterator

from oss_lab.bench.measure import Result
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks.compare import compare_sides

PROMPT, NEW = 100, 100


def measure(setting: Setting) -> Iterator[Result]:
    prompt = setting.make_ids(PROMPT)
    name = f"generate {NEW} after {PROMPT}"
    yield from compare_sides(setting, name, lambda side: side.generate(prompt, NEW), NEW)
