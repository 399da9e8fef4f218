"""What is timed of each side: decoding, the library's own loop, prefill, the first token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from oss_lab.bench.sides import NEW, Side

PROMPT = 100
PREFILLS = (128, 512, 2048)
LONGEST = max(*PREFILLS, PROMPT)


@dataclass(frozen=True)
class Task:
    """`prepare(side)` gives what is timed: the work of `tokens` tokens (None: milliseconds)."""

    name: str
    tokens: int | None
    prepare: Callable[[Side], Callable[[], object]]

    def figure(self, seconds: float) -> float:
        return 1000 * seconds if self.tokens is None else self.tokens / seconds


def tasks(tokens: Tensor) -> Iterator[Task]:
    prompt = tokens[:, :PROMPT]
    yield Task(f"decode {NEW} after {PROMPT}", NEW, lambda side: side.decoder(prompt))
    yield Task(f"generate() {NEW} after {PROMPT}", NEW, lambda side: partial(side.generate, prompt))
    for length in PREFILLS:
        first = tokens[:, :length]
        yield Task(f"prefill {length}", length, lambda side, x=first: partial(side.first_token, x))
    yield Task(f"first token of {PROMPT}", None, lambda side: partial(side.first_token, prompt))
