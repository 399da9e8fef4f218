"""Decoding several sequences in one batch, as the server does for several clients."""

from collections.abc import Iterator

from oss_lab.bench.measure import Result
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks.compare import compare_sides

ROWS, PROMPT, NEW = 8, 100, 32


def measure(setting: Setting) -> Iterator[Result]:
    prompt = setting.make_ids(PROMPT, ROWS)
    name = f"decode {NEW} in {ROWS} rows"
    yield from compare_sides(setting, name, lambda side: side.decode(prompt, NEW), ROWS * NEW)
