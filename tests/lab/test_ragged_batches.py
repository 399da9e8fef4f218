"""Ragged batches: rows of any lengths that join and leave between steps give the same as alone.

Every row gets its tokens in advance. The tests compare the probability of each token, not a reply,
which a near-tie could change. The model uses all experts, so rounding cannot change a choice.
"""

from dataclasses import replace
from random import Random

import pytest
import torch
from oss_kernels.backends import load_backend

from oss_lab import AblateHead, AddVector
from oss_lab.engine import batch as batches
from oss_lab.engine.batch import Batch
from oss_lab.engine.choice import Engines
from oss_lab.engine.request import Request
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.hooks.selection import Selection

SCHEDULES, FEW = 200, 25
POINTS = Selection.of(["resid.post", "attn.sink_mass"], layers=[1])


@pytest.fixture(scope="module")
def engines(random_model, tiny_config):
    config = replace(tiny_config, experts_per_token=tiny_config.num_experts)
    return Engines(random_model(config), load_backend("cpu"))


def request(draw: Random, vocab: int) -> tuple[Request, list[int]]:
    """A random request, perhaps with an intervention or a recording, and the tokens forced on it.
    Lengths exceed the window of 8."""
    ids = tuple(draw.randrange(vocab) for _ in range(draw.choice([1, 2, 7, 8, 9, 20])))
    given = [draw.randrange(vocab) for _ in range(draw.randint(1, 12))]
    vector = torch.linspace(-1, 1, 64)
    effects = draw.choice(
        [
            (),
            (),
            (Effect(AblateHead(layer=1, head=draw.randrange(4))),),
            (Effect(AddVector(point="resid.mid", layer=0, vector=vector, positions=[3, 9])),),
        ]
    )
    selection = POINTS if draw.random() < 0.3 else None
    return Request(ids, max_tokens=len(given), selection=selection, effects=effects), given


def run_alone(engine, requested, given):
    """Log-probabilities of the given tokens, and the recorded tensors."""
    effects = tuple(Effect(each.intervention) for each in requested.effects)
    batch = Batch(engine)
    (row,) = batch.add([replace(requested, effects=effects)])
    row.forced.extend(given)
    found = [token.logprob for _, token in batch]
    return found, row.recording and row.recording.tensors()


def run_schedule(engine, seed, vocab):
    """One random schedule: groups join at random steps, and some rows leave early."""
    draw, batch, seen = Random(seed), Batch(engine), {}
    to_join = draw.randint(2, 5)
    while to_join or batch.rows:
        if to_join and (not batch.rows or draw.random() < 0.3):
            requested = [request(draw, vocab) for _ in range(draw.choice([1, 1, 2, 3]))]
            rows = batch.add([each for each, _ in requested])
            for row, (_, given) in zip(rows, requested, strict=True):
                row.forced.extend(given)
                seen[row.number] = (row, given, [])
            to_join -= 1
        for row, token in batch.step():
            seen[row.number][2].append(token.logprob)
        if batch.rows and draw.random() < 0.1:
            batch.remove(draw.choice(batch.rows))
    return seen.values()


@pytest.mark.parametrize("name", ["reference", "kernels"])
@pytest.mark.parametrize("count", [FEW, pytest.param(SCHEDULES, marks=pytest.mark.slow)])
def test_each_row_of_a_random_schedule_gives_the_same_as_alone(engines, name, count, monkeypatch):
    engine, rows, longest = getattr(engines, name), 0, 0
    for seed in range(count):
        monkeypatch.setattr(batches, "MOST_GROUPS", (1, 4)[seed % 2])  # with and without merges
        for row, given, found in run_schedule(engine, seed, engines.reference.config.vocab_size):
            expected, tensors = run_alone(engine, row.request, given)
            assert found == pytest.approx(expected[: len(found)], abs=2e-5), seed
            if tensors is not None:
                for key, x in row.recording.tensors().items():
                    torch.testing.assert_close(x, tensors[key][: len(x)], atol=2e-5, rtol=1e-4)
            rows, longest = rows + 1, max(longest, len(row.ids))
    assert rows > 3 * count
    assert longest > 3 * engines.reference.config.sliding_window


def test_a_wrong_position_would_be_detected(engines):
    """The comparison is sensitive: one token more at the start changes the probabilities."""
    draw = Random(1)
    requested, given = request(draw, 96)
    longer = replace(requested, tokens=(5, *requested.tokens))
    plain, moved = (run_alone(engines.reference, each, given)[0] for each in (requested, longer))
    assert plain != pytest.approx(moved, abs=1e-3)
