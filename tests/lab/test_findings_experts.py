"""The labels that experts are compared with, the kind and place of a token; and the full experiment
on an untrained model."""

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from oss_lab.harmony import render
from oss_lab.nano.studies import experts
from oss_lab.nano.studies.token_kinds import classify_field, classify_kind
from oss_lab.nano.tasks.settings import make_calculator
from oss_lab.nano.tasks.sums_and_products import Products
from oss_lab.tokenizer import load_vocabulary


def test_kinds_and_places_of_the_tokens_in_a_conversation():
    encoding = load_vocabulary("nano")
    rng = Random(2)
    problem = make_calculator(rng).apply(rng, Products(lengths=(2, 1)).draw(rng, "train"))
    problem = replace(problem, question="What is 12 * 3?", history=())
    conversation = problem.conversation("high")
    rendered = render(conversation, encoding, mode="training")
    user = [n for n, note in enumerate(rendered.annotations) if note.message == 2]
    kinds = [
        (rendered.source(n), classify_kind(rendered.source(n), rendered.annotations[n]))
        for n in user
    ]
    within = rendered.annotations[user[3]]
    assert classify_kind("\n", within) == "newline"
    content = kinds[3:-1]
    assert [kind for _, kind in kinds[:3]] == ["structure"] * 3
    assert ("1", "digit") in content
    assert ("?", "other") in content
    assert [kind for source, kind in content if source.strip() == "*"] == ["operator"]
    assert {kind for source, kind in content if source.strip().isalpha()} == {"word"}
    fields = {classify_field(conversation, note) for note in rendered.annotations}
    assert {"user content", "analysis content", "commentary recipient", "final end"} <= fields
    assert {"tool content", "system content", "developer content"} <= fields
    assert not any(field.startswith("None") for field in fields)


def test_experts_of_an_untrained_model(untrained):
    found = experts.study_experts(untrained, n=3, seed=0, shuffles=5)
    assert found.conversations == 3 * len(experts.TASKS)
    assert found.label_bits["task"] <= math.log2(len(experts.TASKS))
    layers, width = untrained.config.num_hidden_layers, untrained.config.num_experts
    for each in (found.task, found.task_given_token, found.token, found.field):
        assert len(each) == layers
        assert all(information.bits >= 0 for information in each)
    for share in found.share.values():
        assert np.array(share).shape == (layers, width)
        assert np.array(share).sum(1) == pytest.approx(1, abs=1e-3)
