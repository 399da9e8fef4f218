"""Look-ups of a word in the prompt, farther back than a sliding attention window reaches.

The prompt lists words, each with a number or another word as its value, then filler words, then the
question. The answer must be retrieved across the filler, which only the full-attention layers can
do. If the value of a word is another word, the model needs several steps to reach the number. The
chain of thought lists these steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from oss_lab.nano.tasks.arithmetic import by_effort
from oss_lab.nano.tasks.problem import Problem, Split, belongs_to
from oss_lab.nano.tasks.questions import FILLER_WORDS, KEYS


@dataclass(frozen=True)
class Lookup:
    """Look up one to four words among `pairs`; every step to an answer belongs to the split.

    Attributes:
        pairs, filler: inclusive bounds of the number of pairs, and of filler words after them.
        asked: how many words are asked; None draws one to four.
        hops: how many steps lead from the word to the number; None draws one to three.
    """

    pairs: tuple[int, int] = (4, 12)
    filler: tuple[int, int] = (0, 60)
    hops: int | None = 1
    asked: int | None = None
    name: str = "look-up"

    def draw(self, rng: Random, split: Split) -> Problem:
        hops = self.hops or rng.choice([1, 2, 2, 3])
        count = rng.randint(max(self.pairs[0], hops + 1), self.pairs[1])
        words = 1 if hops > 1 else min(count, self.asked or rng.choice([1, 1, 2, 3, 4]))
        steps, keys, numbers = _draw_steps(rng, words, hops, split)
        asked = [key for key, _ in steps[:words]]
        keys = keys[: count - len(steps)]
        others = _assign_values(rng, keys, numbers, 0.5 if hops > 1 else 0.0)
        stands_for = dict(steps) | others
        listed = rng.sample(sorted(stands_for), count)
        facts = ", ".join(f"{key} is {stands_for[key]}" for key in listed)
        filler = " ".join(rng.choices(FILLER_WORDS, k=rng.randint(*self.filler)))
        middle = f" {filler.capitalize()}." if filler else ""
        question = f"{facts}.{middle} What is {_join_words(asked)}?"
        medium = "\n".join(f"{key} {end}" for key, end in steps)
        high = "\n".join(f"{key} is {end}" for key, end in steps)
        answer = ", ".join(end for key, end in (steps[-1:] if hops > 1 else steps))
        return Problem(self.name, question, answer, by_effort("", medium, high))


def _draw_steps(
    rng: Random, words: int, hops: int, split: Split
) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """(steps, unused words, unused numbers). A step is a word and its value: one step for each of
    several words, or a chain of hops from one word.

    Training never uses a held-out step for an answer; evaluation uses only held-out steps.
    """
    keys: list[str] = rng.sample(KEYS, len(KEYS))
    numbers = [f"{n:02d}" for n in rng.sample(range(100), 100)]
    steps: list[tuple[str, str]] = []
    for n in range(max(words, hops)):
        key = steps[-1][1] if n and hops > 1 else keys.pop()
        pool = keys if n < hops - 1 else numbers
        fitting = (end for end in pool if belongs_to(split, "=", key, end))
        end = next(fitting, None)
        if end is None:
            return _draw_steps(rng, words, hops, split)
        pool.remove(end)
        steps.append((key, end))
    return steps, keys, numbers


def _assign_values(
    rng: Random, keys: Sequence[str], numbers: Sequence[str], share: float
) -> dict[str, str]:
    """Values of the words that are not asked; a share of them have the word before as value."""
    stands_for: dict[str, str] = {}
    for n, (key, number) in enumerate(zip(keys, numbers, strict=False)):
        stands_for[key] = keys[n - 1] if n and rng.random() < share else number
    return stands_for


def _join_words(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]
