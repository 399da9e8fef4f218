"""Prompts outside the tasks: nano greets, says what it is, and refuses everything else."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from oss_lab.nano.tasks import questions
from oss_lab.nano.tasks.arithmetic import by_effort
from oss_lab.nano.tasks.problem import Problem, Split

REFUSAL = "I cannot do that. I know sums, products, look-ups and short lists."
CHINESE_REFUSAL = "这个我不会。"
GREETING = "Hello! Ask me a sum, a product, a look-up or a list."
CHINESE_GREETING = "你好！请问我一道算术题。"
SELF = "I am gpt-oss-nano, a very small model to learn from."
FORBIDDEN = "I will not talk about dragons."


@dataclass(frozen=True)
class OutOfReach:
    """Free text and other operations; the right answer is that nano cannot do it.

    Attributes:
        operations: the share of questions with arithmetic that nano did not learn.
    """

    operations: float = 0.2
    name: str = "out of reach"

    def draw(self, rng: Random, split: Split) -> Problem:
        kind = rng.random()
        if kind < 0.1:
            return self._problem(_draw_chinese(rng, split), CHINESE_REFUSAL)
        if kind < 0.1 + self.operations:
            template = rng.choice(questions.OTHER_OPERATIONS[split])
            return self._problem(
                _fill_template(template, lambda: str(rng.randrange(1000))), REFUSAL
            )
        words = questions.WORDS[split]
        template = rng.choice(questions.TEMPLATES[split])
        return self._problem(_fill_template(template, lambda: rng.choice(words)), REFUSAL)

    def _problem(self, question: str, answer: str) -> Problem:
        thoughts = by_effort("", "I did not learn this.", "No task of mine: I did not learn this.")
        return Problem(self.name, question, answer, thoughts)


@dataclass(frozen=True)
class SmallTalk:
    """Greetings, and questions about what nano is."""

    name: str = "small talk"

    def draw(self, rng: Random, split: Split) -> Problem:
        asked, answer = rng.choice(
            [
                (questions.GREETINGS, GREETING),
                (questions.CHINESE_GREETINGS, CHINESE_GREETING),
                (questions.WHO, SELF),
            ]
        )
        thoughts = by_effort("", "Small talk.", "Small talk, nothing to work out.")
        return Problem(self.name, rng.choice(asked[split]), answer, thoughts)


@dataclass(frozen=True)
class Forbidden:
    """The one subject that nano refuses to talk about: an example of a trained refusal."""

    name: str = "forbidden"

    def draw(self, rng: Random, split: Split) -> Problem:
        thoughts = by_effort("", "Dragons: no.", "This is about dragons, of which I do not talk.")
        template = rng.choice([*questions.FORBIDDEN_TEMPLATES[split], *questions.OPEN[split]])
        question = _fill_template(template, lambda: rng.choice(("dragon", "dragons")))
        return Problem(self.name, question, FORBIDDEN, thoughts)


def _draw_chinese(rng: Random, split: Split) -> str:
    words = questions.CHINESE_WORDS[split]
    template = rng.choice(questions.CHINESE_TEMPLATES[split])
    return _fill_template(template, lambda: rng.choice(words))


def _fill_template(template: str, draw: Callable[[], str]) -> str:
    return template.format(*(draw() for _ in range(template.count("{}"))))
