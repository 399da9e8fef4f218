"""Reading a prompt in one forward pass, up to the logits of the next token."""

from collections.abc import Iterator

from oss_lab.bench.measure import Result
from oss_lab.bench.setting import Setting
from oss_lab.bench.tasks.compare import compare_sides

LENGTHS = (128, 512, 2048)


def measure(setting: Setting) -> Iterator[Result]:
    for length in (each for each in LENGTHS if each <= setting.longest):
        prompt = setting.make_ids(length)
        yield from compare_sides(
            setting, f"prefill {length:,}", lambda side, prompt=prompt: side.prefill(prompt), length
        )
