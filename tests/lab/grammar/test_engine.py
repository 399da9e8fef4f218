"""Constraints in a batch: each row has its own, and none of them changes another row.

The constraints here are lists of ids, since the engine knows no grammar.
"""

from dataclasses import dataclass, replace

import pytest
import torch

from oss_lab.engine.batch import Batch
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.engine.request import Request
from oss_lab.engine.row import RowError
from oss_lab.engine.sampling import Sampling
from oss_lab.errors import LabError

VOCAB = 96
HOT = Sampling(temperature=2.0, seed=4)


@dataclass
class Sequences:
    """Allows ids from one set after the other; `failure` is raised once, at the third."""

    sets: list[set[int]]
    at: int = 0
    accepted: tuple[int, ...] = ()
    failure: BaseException | None = None

    def allowed(self):
        if self.failure is not None and self.at == 2:
            failure, self.failure = self.failure, None
            raise failure
        mask = torch.zeros(VOCAB, dtype=torch.bool)
        mask[list(self.sets[self.at])] = True
        return mask

    def accept(self, id):
        if id not in self.sets[self.at]:
            raise LabError(f"{id} is not allowed")
        self.at, self.accepted = self.at + 1, (*self.accepted, id)

    def copy(self):
        return replace(self)


@pytest.fixture(scope="module")
def engine(random_model, tiny_config):
    return ReferenceEngine(random_model(tiny_config))


def allow(*sets, **options):
    return Sequences([set(each) for each in sets], **options)


def test_each_row_is_limited_by_its_own_constraint(engine):
    sets = [[1], [2, 3], [4, 5, 6]], [[90], [91], [92, 93]]
    requests = [
        Request((1, 2, 3), HOT, max_tokens=3, constraint=allow(*sets[0])),
        Request((5, 6), HOT, max_tokens=3, stream_number=1),
        Request((7,), HOT, max_tokens=3, stream_number=2, constraint=allow(*sets[1])),
    ]
    batch = Batch(engine)
    rows = batch.add(requests)
    assert len(list(batch)) == 9
    for row, limits in ((rows[0], sets[0]), (rows[2], sets[1])):
        assert all(token.id in each for token, each in zip(row.tokens, limits, strict=True))
    alone = Batch(engine)
    (free,) = alone.add([requests[1]])
    list(alone)
    assert [token.id for token in free.tokens] == [token.id for token in rows[1].tokens]
    assert requests[0].constraint == allow(*sets[0])  # the row used a copy


def test_the_usable_ids_still_apply(engine):
    usable = torch.ones(VOCAB, dtype=torch.bool)
    usable[8] = False
    batch = Batch(engine, usable=usable)
    (row,) = batch.add([Request((1,), HOT, max_tokens=1, constraint=allow([8, 9]))])
    list(batch)
    assert row.tokens[0].id == 9


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_step_can_be_repeated(engine, failure):
    sets = [[1, 2], [3, 4], [5, 6], [7, 8]]
    plain = Batch(engine)
    (expected,) = plain.add([Request((1, 2), HOT, max_tokens=4, constraint=allow(*sets))])
    list(plain)
    batch = Batch(engine)
    given = allow(*sets, failure=failure)
    (row, other) = batch.add(
        [
            Request((1, 2), HOT, max_tokens=4, constraint=given),
            Request((3,), HOT, max_tokens=4, stream_number=1),
        ]
    )
    batch.step()
    batch.step()
    with pytest.raises(type(failure)):
        batch.step()
    assert len(row.tokens) == len(other.tokens) == 2
    given.failure = None
    list(batch)
    assert row.tokens == [
        replace(token, logprob=pytest.approx(token.logprob, abs=1e-4)) for token in expected.tokens
    ]


def test_a_sampler_that_is_interrupted_can_be_repeated(engine):
    failures = [KeyboardInterrupt()]

    def sample(logits, samplings, draws):
        ids = [int(row.argmax()) for row in logits]
        [draw.uniform() for draw in draws]
        if failures:
            raise failures.pop()
        return ids

    batch = Batch(engine, sample=sample)
    (row,) = batch.add([Request((1,), HOT, max_tokens=2, constraint=allow([1, 2], [3, 4]))])
    with pytest.raises(KeyboardInterrupt):
        batch.step()
    list(batch)
    assert row.tokens[0].id in (1, 2)
    assert row.tokens[1].id in (3, 4)


def test_forced_ids_are_accepted_and_need_no_mask(engine):
    batch = Batch(engine)
    (row,) = batch.add([Request((1,), HOT, max_tokens=3, constraint=allow([1, 2], [2], [3, 4]))])
    row.forced.extend([1, 2])
    list(batch)
    assert [token.id for token in row.tokens[:2]] == [1, 2]
    assert row.tokens[2].id in (3, 4)
    assert [token.forced for token in row.tokens] == [True, True, False]


def test_a_row_that_fails_is_named_and_the_others_continue(engine):
    batch = Batch(engine)
    bad, good = batch.add(
        [
            Request((1, 2), HOT, max_tokens=3, constraint=allow([1], [], [2])),
            Request((3,), HOT, max_tokens=3, constraint=allow([4], [5], [6])),
        ]
    )
    batch.step()
    with pytest.raises(RowError, match="the constraint allows no id here") as error:
        batch.step()
    assert error.value.row is bad
    batch.remove(bad)
    list(batch)
    assert [token.id for token in good.tokens] == [4, 5, 6]


def test_a_forced_id_that_is_not_allowed_is_an_error_of_its_row(engine):
    batch = Batch(engine)
    (row,) = batch.add([Request((1,), HOT, max_tokens=3, constraint=allow([1], [2], [3]))])
    row.forced.append(50)
    batch.step()
    with pytest.raises(RowError, match="50 is not allowed"):
        batch.step()


def test_a_sampler_that_ignores_the_mask_is_reported(engine):
    batch = Batch(engine, sample=lambda logits, samplings, draws: [7] * len(logits))
    batch.add([Request((1,), HOT, max_tokens=1, constraint=allow([1, 2]))])
    with pytest.raises(RowError, match="id 7 was sampled although its logit is -inf"):
        batch.step()


def test_without_a_constraint_the_sampler_gets_the_logits_of_the_batch(engine):
    seen = []

    def sample(logits, samplings, draws):
        seen.append(logits)
        return [1] * len(logits)

    batch = Batch(engine, sample=sample)
    batch.add([Request((1, 2), HOT, max_tokens=1)])
    (logits,) = [group.logits for group in batch.groups]
    batch.step()
    assert logits is not None
    assert seen[0].data_ptr() == logits.data_ptr()  # not even copied


def test_a_mask_does_not_change_the_logits_of_the_batch(engine):
    batch = Batch(engine)
    batch.add([Request((1, 2), HOT, max_tokens=2, constraint=allow([1], [2]))])
    (logits,) = [group.logits for group in batch.groups]
    assert logits is not None
    before = logits.clone()
    batch.step()
    assert torch.equal(logits, before)
    assert before.isfinite().all()
