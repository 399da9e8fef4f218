"""The measure of lesson 18: the same problems with each effort word, and the difference.

Registered before the first run at full size. What is counted: tokens of analysis per reply, at
temperature 1, of held-out problems that are each asked with every word. An effect: the 95%
bootstrap interval over problems of high minus low excludes 0, and the difference has at least
LEAST tokens, half of a line of thinking. The control within the test swaps words at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from oss_lab.analysis.statistics.bootstrap import Mean
from oss_lab.analysis.statistics.paired import paired_interval
from oss_lab.analysis.statistics.shares import Paired
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.nano.tasks import Problem
from oss_lab.record.reply import Reply
from oss_lab.record.token_labels import count_channel_tokens

LEAST = 9.0  # tokens
BATCH = 100


@dataclass(frozen=True)
class Answers:
    """The replies to the problems with one word: tokens of analysis, and whether it is right."""

    tokens: list[int]
    right: list[bool]


def count_thoughts(lab: Lab, reply: Reply) -> int:
    """The tokens of the reply's analysis, without Harmony's own."""
    return count_channel_tokens(reply, lab.tokenizer)["analysis"]


def answer_each_word(
    lab: Lab, problems: Sequence[Problem], max_tokens: int, seed: int = 0
) -> dict[Effort, Answers]:
    """Ask every problem with every word, at temperature 1.

    A problem draws from the same random stream with each word, so only the word differs.
    """
    answers: dict[Effort, Answers] = {}
    for word in EFFORTS:
        found = Answers([], [])
        for start in range(0, len(problems), BATCH):
            group = problems[start : start + BATCH]
            replies = lab.chat_batch(
                [each.prompt(word) for each in group], range(start, start + len(group)),
                seed=seed, temperature=1.0, max_tokens=max_tokens,
            )  # fmt: skip
            found.tokens.extend(count_thoughts(lab, each) for each in replies)
            found.right.extend(
                problem.is_right(each.messages)
                for problem, each in zip(group, replies, strict=True)
            )
        answers[word] = found
    return answers


def swap_words(answers: Mapping[Effort, Answers], seed: int = 0) -> dict[Effort, Answers]:
    """The same replies, with the words of each problem in random order."""
    rng, swapped = Random(seed), dict[Effort, Answers]()
    swapped.update((word, Answers([], [])) for word in EFFORTS)
    for n in range(len(answers["low"].tokens)):
        for word, other in zip(EFFORTS, rng.sample(EFFORTS, len(EFFORTS)), strict=True):
            swapped[word].tokens.append(answers[other].tokens[n])
            swapped[word].right.append(answers[other].right[n])
    return swapped


def measure_dial(answers: Mapping[Effort, Answers]) -> Mean:
    """Tokens of analysis with the word high minus those with low, over problems."""
    pairs = zip(answers["high"].tokens, answers["low"].tokens, strict=True)
    return Mean.of([high - low for high, low in pairs], seed=0)


def is_effect(dial: Mean) -> bool:
    """Whether it counts as an effect, by the rule above; also in the other direction."""
    assert dial.value is not None
    assert dial.interval is not None
    low, high = dial.interval
    return (low > 0 or high < 0) and abs(dial.value) >= LEAST


def summarize(answers: Mapping[Effort, Answers]) -> dict[str, Any]:
    """Counts by word, and the differences between high and low, as plain data."""
    words = {}
    for word, found in answers.items():
        mean = Mean.of(found.tokens, seed=0)
        words[word] = {
            "n": len(found.tokens),
            "right": sum(found.right),
            "thinking": sum(each > 0 for each in found.tokens),
            "right_thinking": sum(
                is_right
                for is_right, tokens in zip(found.right, found.tokens, strict=True)
                if tokens > 0
            ),
            "tokens": describe(mean),
        }
    dial, swapped = measure_dial(answers), measure_dial(swap_words(answers))
    pair = Paired.of(answers["high"].right, answers["low"].right)
    accuracy = {
        "value": round(pair.difference, 3),
        "interval": [round(bound, 3) for bound in paired_interval(pair)],
        "only_high": pair.only_first,
        "only_low": pair.only_second,
    }
    return {
        "words": words,
        "dial": describe(dial) | {"is_effect": is_effect(dial)},
        "words_swapped": describe(swapped) | {"is_effect": is_effect(swapped)},
        "accuracy": accuracy,
    }


def describe(mean: Mean) -> dict[str, Any]:
    assert mean.value is not None
    assert mean.interval is not None
    return {
        "value": round(mean.value, 2),
        "interval": [round(bound, 2) for bound in mean.interval],
    }
