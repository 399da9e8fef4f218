"""Questions, and a Lab that answers them without a model."""

from typing import Any

import pytest

from oss_lab.engine.sampling import GREEDY
from oss_lab.evaluation.grade import WrittenAnswer
from oss_lab.evaluation.question import FileQuestion
from oss_lab.evaluation.run import answer_questions
from oss_lab.harmony import render
from oss_lab.harmony.messages import Effort
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.token import Token


class AnsweringLab:
    """Replaces a Lab: `say(prompt, draw)` returns the reply to a conversation as Harmony text.
    `draw` identifies the row's stream of random numbers: (seed, number).

    Attributes:
        batches: the number of prompts in each call of `chat_batch`.
    """

    def __init__(self, tokenizer, config, say, sampling=GREEDY):
        self.tokenizer, self.config, self.say, self.sampling = tokenizer, config, say, sampling
        self.batches = []

    def render(self, conversation):
        rendered = render(conversation, self.tokenizer)
        return rendered.tokens, rendered.warnings

    def chat_batch(self, prompts, draws, *, seed, max_tokens):
        self.batches.append(len(prompts))
        replies = []
        for prompt, draw in zip(prompts, draws, strict=True):
            said = self.say(prompt, (seed, draw))
            builder = ReplyBuilder(
                self.tokenizer, prompt, tuple(render(prompt, self.tokenizer).tokens)
            )
            for id in self.tokenizer.encode(said, allowed_special="all")[:max_tokens]:
                builder.add(Token(id, 0.0))
            replies.append(builder.finish()[1])
        return replies


@pytest.fixture(scope="session")
def answering_lab(tiny, tiny_config):
    """`answering_lab(say, sampling=GREEDY)`: a Lab whose replies come from `say`."""
    return lambda say, **options: AnsweringLab(tiny, tiny_config, say, **options)


@pytest.fixture(scope="session")
def successor():
    """A `say` for `answering_lab`: the right answer to `k+1?`, except for multiples of three."""

    def say(prompt, draw):
        k = int(prompt.messages[-1].text.split("+")[0])
        return f"<|channel|>final<|message|>{k + 1 if k % 3 else 'no idea'}<|return|>"

    return say


@pytest.fixture(scope="session")
def make_questions():
    """`make_questions(3)`: the questions `0+1?`, `1+1?` and `2+1?`, all named sums."""

    def questions(n=5, **options):
        return [
            FileQuestion("sums", f"{k}+1?", WrittenAnswer(str(k + 1)), **options) for k in range(n)
        ]

    return questions


@pytest.fixture(scope="session")
def run_evaluation():
    """`run_evaluation(lab, questions, "high", batch=3)`: the outcomes, in the order of the
    questions."""

    def evaluate(lab, questions, effort: Effort = "low", **options):
        limits: dict[str, Any] = {"batch": 4, "max_tokens": 128, "seed": 1}
        return sorted(
            answer_questions(lab, questions, effort, **limits | options),
            key=lambda each: each.index,
        )

    return evaluate
