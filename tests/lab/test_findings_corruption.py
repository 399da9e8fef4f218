"""After one wrong digit in its analysis, does a model's answer follow the digit or the question? A
substitute for nano continues in known ways."""

from typing import Any

import pytest

from oss_lab.analysis.statistics.shares import Share
from oss_lab.config import GPT_OSS_NANO
from oss_lab.harmony import render
from oss_lab.nano.studies import corruption
from oss_lab.nano.tasks.product_steps import (
    compute_answer,
    join_steps,
    work_out_product,
    write_product_thoughts,
)
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.token import Token
from oss_lab.tokenizer import load_vocabulary


class FakeNano:
    """Replaces nano: writes correct analyses, and continues a given one as `carry_on` decides."""

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
        return [self.reply(p, write_product_thoughts(*operands(p))["high"], "?") for p in prompts]

    def continue_analysis(self, prompts, thoughts):
        replies = []
        for prompt, thought in zip(prompts, thoughts, strict=True):
            a, b = operands(prompt)
            results = [step.result for step in steps_within(a, b, thought)]
            steps = work_out_product(a, b, "high", results)
            replies.append(self.reply(prompt, join_steps(steps), self.carry_on(a, b, steps)))
        return replies


def operands(prompt):
    a, b = (int(n) for n in "".join(
        c if c.isdigit() else " " for c in prompt.messages[-1].text
    ).split())  # fmt: skip
    return a, b


def steps_within(a, b, thought):
    """The results in a truncated analysis, read back one by one."""
    given: list[str] = []
    while len(join_steps(work_out_product(a, b, "high", given)[: len(given)])) < len(thought):
        step = work_out_product(a, b, "high", given)[len(given)]
        begin = len(join_steps(work_out_product(a, b, "high", given)[: len(given)])) + len(
            step.lead
        )
        given.append(thought[begin : begin + len(step.result)])
    return work_out_product(a, b, "high", given)[: len(given)]


@pytest.mark.parametrize(
    ("carry_on", "true", "follows", "other"),
    [
        (lambda a, b, steps: compute_answer(steps), 0, 1, 0),
        (lambda a, b, steps: a * b, 1, 0, 0),
        (lambda a, b, steps: "", 0, 0, 1),
    ],
    ids=["works on from what is written", "knows the answer anyway", "gives up"],
)
def test_answers_are_classified_by_their_origin(monkeypatch, carry_on, true, follows, other):
    pupil: Any = FakeNano(load_vocabulary("nano"), carry_on)
    monkeypatch.setattr(
        corruption,
        "continue_analysis",
        lambda lab, prompts, thoughts, _: pupil.continue_analysis(prompts, thoughts),
    )
    monkeypatch.setattr(corruption, "BATCH", 64)  # two batches
    found = corruption.study_corruption(pupil, "high", n=70, seed=0)
    assert found.faultless == Share(70, 70)
    counts = [found.corrupted.true, found.corrupted.follows, found.corrupted.other]
    assert counts == [Share(70 * each, 70) for each in (true, follows, other)]
    assert sum(each.true.n for each in found.by_kind.values()) == 70
    assert set(found.by_kind) == set(corruption.KINDS)
    assert found.control == Share(0 if other else 70, 70)
