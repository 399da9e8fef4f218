"""Decoding one sequence: each step reads the last token and computes the logits of the next."""

from collections.abc import Iterator

from oss_lab.bench.measure import Result
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks.compare import compare_sides

PROMPT, NEW = 100, 100


def measure(setting: Setting) -> Iterator[Result]:
    prompt = setting.make_ids(PROMPT)
    name = f"decode {NEW} after {PROMPT}"
    yield from compare_sides(setting, name, lambda side: side.decode(prompt, NEW), NEW)
