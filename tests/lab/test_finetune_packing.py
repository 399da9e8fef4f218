"""Packed rows: every example gets the logits that it has alone."""

from random import Random

import pytest
import torch
from torch import Tensor

from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.finetune.examples import Example
from oss_lab.finetune.packing import PackedRows, collate, pack
from oss_lab.finetune.recipe import Recipe
from oss_lab.finetune.schedule import learning_rate, plan_steps


@pytest.fixture(scope="module")
def model(finetune_base):
    return load_model(open_checkpoint(finetune_base))


def draw(length: int, seed: int) -> Example:
    rng = Random(seed)
    return Example([rng.randrange(640) for _ in range(length)], [n % 3 == 0 for n in range(length)])


@torch.no_grad()
def logits_alone(model, example: Example) -> Tensor:
    return model(torch.tensor([example.tokens[:-1]]))[0]


def test_logits_of_packed_examples_are_those_of_each_alone(model) -> None:
    """Lengths around the window of 8, one token, and rows of different lengths."""
    rows = [[draw(n + 1, n) for n in each] for each in ((7, 8, 9, 33), (1, 20, 2), (40,))]
    batch = collate(rows)
    with torch.no_grad():
        logits = model(batch.inputs, PackedRows(batch))
    for n, row in enumerate(rows):
        start = 0
        for example in row:
            end = start + len(example.tokens) - 1
            alone = logits_alone(model, example)
            torch.testing.assert_close(logits[n, start:end], alone, rtol=0, atol=1e-5)
            assert batch.positions[n, start:end].tolist() == list(range(end - start))
            assert batch.targets[n, start:end].tolist() == example.tokens[1:]
            assert batch.weights[n, start:end].tolist() == example.learned[1:]
            start = end
        assert not batch.weights[n, start:].any()
        assert (batch.positions[n, start:] == -1).all()
    assert logits.isfinite().all()


def test_joined_without_boundaries_the_logits_differ(model) -> None:
    batch = collate([[draw(12, 0), draw(12, 1)]])
    with torch.no_grad():
        joined = model(batch.inputs)[0, 11:]
    assert (joined - logits_alone(model, draw(12, 1))).abs().max() > 1e-3


def test_every_example_is_packed_once_and_fits() -> None:
    rng = Random(0)
    lengths = [rng.randrange(1, 101) for _ in range(300)]
    rows = pack(lengths, 100)
    assert sorted(n for row in rows for n in row) == list(range(300))
    filled = [sum(lengths[n] for n in row) for row in rows]
    assert max(filled) <= 100
    assert sum(filled) / (100 * len(rows)) > 0.85


def test_an_epoch_reads_every_example_and_steps_cut_the_last() -> None:
    examples = [draw(11, n) for n in range(21)]
    steps = plan_steps(examples, Recipe(length=20, batch=4, epochs=2))
    seen = [n for step in steps for row in step for n in row]
    assert sorted(seen) == sorted([*range(21), *range(21)])
    assert seen[:21] != seen[21:]
    assert [len(step) for step in steps] == [4, 4, 3, 4, 4, 3]
    assert plan_steps(examples, Recipe(length=20, batch=4, steps=4)) == steps[:4]
    assert plan_steps(examples, Recipe(length=20, batch=4, epochs=2, seed=1)) != steps


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(Recipe(learning_rate=1.0, warm_up=4), n, 20) for n in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0.02 < rates[-1] < 0.05
