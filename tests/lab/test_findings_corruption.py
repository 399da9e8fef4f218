"""After one wrong digit in its analysis, does a model's answer follow the digit or the question?
Here a stand-in goes on in ways that are known."""

from typing import Any

import pytest

from oss_lab.analysis.statistics.shares import Share
from oss_lab.config import GPT_OSS_NANO
from oss_lab.harmony import render
from oss_lab.nano.studies import corruption
from oss_lab.nano.tasks.product_steps import answer, product_steps, product_thoughts, text
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.token import Token
from oss_lab.tokenizer import load_vocabulary


class Pupil:
    """Stands in for nano: writes true analyses, and goes on from one as `carry_on` says."""

    def __init__(self, tokenizer, carry_on):
        self.tokenizer, self.config, self.carry_on = tokenizer, GPT_OSS_NANO, carry_on

    def reply(self, prompt, thought, final):
        builder = ReplyBuilder(self.tokenizer, prompt, tuple(render(prompt, self.tokenizer).tokens))
        said = (
            f"<|channel|>analysis<|message|>{thought}<|end|>"
            f"<|start|>assistant<|channel|>final<|message|>{final}<|return|>"
        )
        for id in self.tokenizer.encode(said, allowed_special="all"):
            builder.add(Token(id, 0.0))
        return builder.finish()[1]

    def chat_batch(self, prompts, *, sampling, max_tokens):
        return [self.reply(p, product_thoughts(*operands(p))["high"], "?") for p in prompts]

    def go_on(self, prompts, thoughts):
        gone_on = []
        for prompt, thought in zip(prompts, thoughts, strict=True):
            a, b = operands(prompt)
            results = [step.result for step in steps_within(a, b, thought)]
            steps = product_steps(a, b, "high", results)
            gone_on.append(self.reply(prompt, text(steps), self.carry_on(a, b, steps)))
        return gone_on


def operands(prompt):
    a, b = (int(n) for n in "".join(
        c if c.isdigit() else " " for c in prompt.messages[-1].text
    ).split())  # fmt: skip
    return a, b


def steps_within(a, b, thought):
    """The results that a trace cut short has, read back one by one."""
    given: list[str] = []
    while len(text(product_steps(a, b, "high", given)[: len(given)])) < len(thought):
        step = product_steps(a, b, "high", given)[len(given)]
        begin = len(text(product_steps(a, b, "high", given)[: len(given)])) + len(step.lead)
        given.append(thought[begin : begin + len(step.result)])
    return product_steps(a, b, "high", given)[: len(given)]


@pytest.mark.parametrize(
    ("carry_on", "true", "follows", "other"),
    [
        (lambda a, b, steps: answer(steps), 0, 1, 0),
        (lambda a, b, steps: a * b, 1, 0, 0),
        (lambda a, b, steps: "", 0, 0, 1),
    ],
    ids=["works on from what is written", "knows the answer anyway", "gives up"],
)
def test_answers_are_sorted_by_where_they_come_from(monkeypatch, carry_on, true, follows, other):
    pupil: Any = Pupil(load_vocabulary("nano"), carry_on)
    monkeypatch.setattr(
        corruption, "go_on", lambda lab, prompts, thoughts, _: pupil.go_on(prompts, thoughts)
    )
    monkeypatch.setattr(corruption, "BATCH", 64)  # two batches
    found = corruption.measure(pupil, "high", n=70, seed=0)
    assert found.faultless == Share(70, 70)
    counts = [found.corrupted.true, found.corrupted.follows, found.corrupted.other]
    assert counts == [Share(70 * each, 70) for each in (true, follows, other)]
    assert sum(each.true.n for each in found.by_kind.values()) == 70
    assert set(found.by_kind) == set(corruption.KINDS)
    assert found.control == Share(0 if other else 70, 70)
