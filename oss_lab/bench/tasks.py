"""What is timed on each side: decoding, the library's generation loop, prefill, the first token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from oss_lab.bench.sides import NEW, Side

PROMPT = 100
PREFILLS = (128, 512, 2048)
LONGEST = max(*PREFILLS, PROMPT)


@dataclass(frozen=True)
class SpeedTask:
    """`prepare(side)` returns the function to time: the work of `tokens` tokens.

    With tokens, results are tokens per second; without, milliseconds.
    """

    name: str
    tokens: int | None
    prepare: Callable[[Side], Callable[[], object]]

    def to_rate(self, seconds: float) -> float:
        return 1000 * seconds if self.tokens is None else self.tokens / seconds


def make_tasks(tokens: Tensor) -> Iterator[SpeedTask]:
    prompt = tokens[:, :PROMPT]
    yield SpeedTask(f"decode {NEW} after {PROMPT}", NEW, lambda side: side.decoder(prompt))
    yield SpeedTask(
        f"generate() {NEW} after {PROMPT}", NEW, lambda side: partial(side.generate, prompt)
    )
    for length in PREFILLS:
        first = tokens[:, :length]
        yield SpeedTask(
            f"prefill {length}", length, lambda side, x=first: partial(side.first_token, x)
        )
    yield SpeedTask(
        f"first token of {PROMPT}", None, lambda side: partial(side.first_token, prompt)
    )
