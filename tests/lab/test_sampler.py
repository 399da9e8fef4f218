"""The sampler keeps exactly what a full sort would keep, and samples with the right frequencies."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from oss_lab.engine import buckets
from oss_lab.engine.sampler import _sample_together, filter_tokens, sample
from oss_lab.engine.sampling import GREEDY, RandomStream, Sampling
from oss_lab.errors import LabError

FILTERS = {
    "no filter": {},
    "top_k": {"top_k": 50},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "all": {"top_k": 50, "top_p": 0.9, "min_p": 0.05},
}
TEMPERATURES = (1e-3, 0.5, 1.0, 1.0, 3.0, 1e30)
LAST = 1 - 2**-53  # the largest number that the generator can return


class FixedRandom(RandomStream):
    """A generator that always returns the same number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniform(self) -> float:
        return self.number


def make_logits(shape: str, vocab: int, random: np.random.Generator) -> np.ndarray:
    logits = random.normal(size=vocab)
    if shape == "wide":
        logits *= 3
    elif shape == "peaked":
        logits[random.choice(vocab, 3)] += 15
    elif shape == "ties":
        logits = random.integers(-3, 4, size=vocab) / 2.0
    elif shape == "duplicates":
        logits = random.choice(logits[: max(2, vocab // 10)], vocab)
    elif shape == "masked":
        logits[random.random(vocab) < 0.4] = -np.inf
        logits[random.integers(vocab)] = 1.0
    elif shape == "subnormal":
        logits = random.integers(0, 5, size=vocab) * 1e-40
    return logits.astype(np.float32)


SHAPES = ("flat", "wide", "peaked", "ties", "duplicates", "masked", "subnormal")


def filter_exactly(logits: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray, bool]:
    """What a float64 sort keeps: ids, probabilities, and whether rounding decides the last one."""
    relative = (logits.astype(np.float64) - logits.max()) / sampling.temperature
    shares = np.exp(relative) / np.exp(relative).sum()
    order = np.lexsort((np.arange(len(logits)), -shares))
    shares = shares[order][: sampling.top_k]
    shares = shares / shares.sum()
    close = np.zeros(0)
    if sampling.top_p < 1:
        before = np.concatenate([[0], shares.cumsum()[:-1]])
        close = before - sampling.top_p
        shares = shares[before < sampling.top_p]
        shares = shares / shares.sum()
    close = np.concatenate([close, shares / shares[0] - sampling.min_p if sampling.min_p else []])
    shares = shares[shares >= sampling.min_p * shares[0]]
    shares = shares[shares > 0]
    return order[: len(shares)], shares / shares.sum(), bool((abs(close) < 1e-13).any())


def make_case(seed: int) -> tuple[np.ndarray, Sampling]:
    """Random logits of all kinds in turn, with random filters."""
    random = np.random.default_rng(seed)
    vocab = int(random.integers(5, 3001)) if seed % 3 else int(random.integers(5, 30))
    logits = make_logits(SHAPES[seed % len(SHAPES)], vocab, random)
    has_k, has_p, has_min = random.random(3) < 0.6
    return logits, Sampling(
        temperature=float(random.choice(TEMPERATURES)),
        top_k=int(random.integers(1, vocab + 10)) if has_k else None,
        top_p=float(1 - random.random()) if has_p else 1.0,
        min_p=float(random.random() ** 3) if has_min else 0.0,
    )


def draw(logits: torch.Tensor, sampling: Sampling, seed: int, count: int) -> list[int]:
    """Sample one token after the other, from one row."""
    numbers = RandomStream(seed, 0)
    return sample(logits.expand(count, -1), [sampling] * count, [numbers] * count)


@pytest.mark.parametrize("large", [0, 10**9], ids=["narrow buckets", "wide buckets"])
def test_the_kept_and_sampled_tokens_equal_those_of_a_full_sort(monkeypatch, large):
    monkeypatch.setattr(buckets, "LARGE", large)
    decided_by_rounding = 0
    for seed in range(280):
        logits, sampling = make_case(seed)
        ids, shares, close = filter_exactly(logits, sampling)
        if close:
            decided_by_rounding += 1
            continue
        row = torch.from_numpy(logits)
        kept_ids, kept_shares = filter_tokens(row, sampling)
        assert kept_ids.tolist() == ids.tolist(), (seed, sampling)
        assert kept_shares.dtype == torch.float64
        np.testing.assert_allclose(kept_shares.numpy(), shares, rtol=1e-12, atol=1e-300)

        numbers = [0.0, *np.random.default_rng(seed).random(6).tolist()]
        expected = [int(ids[np.searchsorted(shares.cumsum(), n, side="right")]) for n in numbers]
        rows, samplings = row.expand(len(numbers), -1), [sampling] * len(numbers)
        for choose in (sample, _sample_together):
            assert choose(rows, samplings, [FixedRandom(n) for n in numbers]) == expected, seed
            assert choose(row[None], [sampling], [FixedRandom(LAST)])[0] in ids, seed
    assert decided_by_rounding < 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", FILTERS)
def test_sampling_from_a_full_vocabulary_is_exact(name, dtype):
    logits = torch.randn(201_088, generator=torch.Generator().manual_seed(0)).to(dtype)
    sampling = Sampling(**FILTERS[name])
    ids, shares, close = filter_exactly(logits.double().numpy(), sampling)
    assert not close
    numbers = np.random.default_rng(0).random(8).tolist()
    expected = ids[np.searchsorted(shares.cumsum(), numbers, side="right")].tolist()
    drawn = sample(logits.expand(8, -1), [sampling] * 8, [FixedRandom(n) for n in numbers])
    assert drawn == expected
    if name == "top_p":
        assert len(ids) > 100_000
        assert filter_tokens(logits, sampling)[0].tolist() == ids.tolist()


def test_the_token_that_reaches_top_p_is_kept_and_lower_ids_come_first_among_equals():
    equal = torch.zeros(10)
    for count in range(1, 10):
        sampling = Sampling(top_p=count / 10)
        assert filter_tokens(equal, sampling)[0].tolist() == list(range(count))
        assert set(draw(equal, sampling, seed=0, count=200)) == set(range(count))
    assert filter_tokens(equal, Sampling(top_p=0.25))[0].tolist() == [0, 1, 2]
    assert filter_tokens(equal, Sampling(top_k=2))[0].tolist() == [0, 1]


def test_the_tokens_that_just_reach_min_p_are_kept():
    logits, sampling = torch.tensor([0.0, -1.0, 0.0]), Sampling(min_p=1.0)
    assert filter_tokens(logits, sampling)[0].tolist() == [0, 2]
    assert set(draw(logits, sampling, seed=0, count=100)) == {0, 2}


def test_each_filter_applies_to_the_tokens_left_by_the_previous_one():
    logits = torch.tensor([0.45, 0.35, 0.2]).log()
    # 0.45 is 56% of the two most likely, so it reaches 0.55 alone there, but not among the three.
    assert filter_tokens(logits, Sampling(top_k=2, top_p=0.55))[0].tolist() == [0]
    assert filter_tokens(logits, Sampling(top_p=0.55))[0].tolist() == [0, 1]
    assert set(draw(logits, Sampling(top_k=2, top_p=0.55), seed=0, count=200)) == {0}
    assert set(draw(logits, Sampling(top_p=0.55), seed=0, count=200)) == {0, 1}


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("filters", ["no filter", "all"])
@pytest.mark.parametrize("shape", ["flat", "wide", "peaked"])
def test_tokens_are_sampled_with_their_probability(shape, filters, count):
    logits = make_logits(shape, 1000, np.random.default_rng(1))
    sampling = Sampling(**FILTERS[filters])
    ids, shares, _ = filter_exactly(logits, sampling)
    drawn = np.bincount(draw(torch.from_numpy(logits), sampling, 0, count), minlength=1000)
    assert drawn[ids].sum() == count
    # Chi-squared needs about five draws per bin, so the rare tokens share one.
    common = shares * count >= 5
    rare = shares[~common].sum() * count
    observed, expected = drawn[ids][common], shares[common] * count
    if rare >= 5:
        observed = np.append(observed, drawn[ids][~common].sum())
        expected = np.append(expected, rare)
    expected *= observed.sum() / expected.sum()
    assert len(observed) > 1
    assert chisquare(observed, expected).pvalue > 1e-4


def test_no_two_rows_or_seeds_share_random_numbers():
    streams = [RandomStream(seed, row) for seed in range(31) for row in range(31)]
    numbers = [draw.uniform() for draw in streams for _ in range(1000)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    assert RandomStream(3 + 5 * 2**32, 0).uniform() != RandomStream(3, 5).uniform()


def test_random_numbers_repeat_with_a_seed_and_not_without():
    def read(seed: int | None, row: int) -> list[float]:
        draw = RandomStream(seed, row)
        return [draw.uniform() for _ in range(5)]

    assert read(7, 0) == read(7, 0) != read(7, 1)
    assert read(2**63 - 1, 3) == read(2**63 - 1, 3)
    assert read(None, 0) != read(None, 0)


def test_the_random_numbers_of_a_seed_stay_the_same_in_every_version():
    assert [RandomStream(0, 0).uniform(), RandomStream(7, 3).uniform()] == [
        0.42662771749236184,
        0.4581767995319014,
    ]


@pytest.mark.parametrize("choose", [sample, _sample_together])
@pytest.mark.parametrize("vocab", [640, 12_000])
def test_rows_with_different_settings_are_sampled_as_if_alone(vocab, choose):
    random = torch.Generator().manual_seed(0)
    samplings = [GREEDY, Sampling(), Sampling(temperature=1e-3), Sampling(temperature=2, top_p=0.5)]
    samplings += [Sampling(**filters) for filters in FILTERS.values()]
    draws = [RandomStream(1, row) for row in range(len(samplings))]
    alone = [RandomStream(1, row) for row in range(len(samplings))]
    for _ in range(5):
        logits = torch.randn(len(samplings), vocab, generator=random)
        singles = [
            sample(row[None], [sampling], [draw])[0]
            for row, sampling, draw in zip(logits, samplings, alone, strict=True)
        ]
        assert choose(logits, samplings, draws) == singles


def test_a_row_does_not_depend_on_the_rows_beside_it():
    random = torch.Generator().manual_seed(0)
    row, others = torch.randn(1, 640, generator=random), torch.randn(3, 640, generator=random)
    expected = [sample(row, [Sampling()], [d])[0] for d in [RandomStream(1, 2)] for _ in range(20)]
    draws = [RandomStream(1, n) for n in range(4)]
    logits = torch.cat([others[:2], row, others[2:]])
    first = [sample(logits, [Sampling()] * 4, draws)[2] for _ in range(10)]
    then = [sample(logits[[2, 3]], [Sampling()] * 2, draws[2:])[0] for _ in range(10)]
    assert first + then == expected
    assert len(set(expected)) > 10


@pytest.mark.parametrize("choose", [sample, _sample_together])
@pytest.mark.parametrize("vocab", [7, 12_000])
def test_temperature_0_chooses_the_most_likely_token_without_a_random_number(vocab, choose):
    logits = torch.randn(3, vocab, generator=torch.Generator().manual_seed(0))
    logits[0, [5, 2, 4]] = 9.0  # of equal logits the lowest id wins
    logits[1] = -1.0
    logits[1, [6, 3]] = torch.tensor([1e-40, 0.0])  # no probability shows this difference
    expected = [2, 6, int(logits[2].argmax())]
    draws = [RandomStream(0, row) for row in range(3)]
    assert choose(logits, [GREEDY] * 3, draws) == expected
    assert [d.uniform() for d in draws] == [RandomStream(0, row).uniform() for row in range(3)]
    ids, shares = filter_tokens(logits[1], GREEDY)
    assert (ids.tolist(), shares.tolist()) == ([6], [1.0])


def test_masked_ids_are_never_drawn():
    logits = torch.full((6,), -math.inf)
    logits[[1, 4]] = torch.tensor([0.0, -1.0])
    for filters in FILTERS.values():
        sampling = Sampling(temperature=1e30, **filters)
        assert set(draw(logits, sampling, seed=0, count=100)) == {1, 4}
        assert filter_tokens(logits, sampling)[0].tolist() == [1, 4]


def test_rows_that_need_gradients_can_be_sampled():
    logits = torch.zeros(1, 8, requires_grad=True)
    assert 0 <= sample(logits, [Sampling()], [RandomStream(0, 0)])[0] < 8


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_p=0.9)])
@pytest.mark.parametrize("vocab", [5, 12_000])
@pytest.mark.parametrize(
    ("broken", "fault"),
    [(math.nan, "contain NaN"), (math.inf, r"contain \+inf"), (-math.inf, "are all -inf")],
)
def test_logits_without_a_possible_token_are_refused(broken, fault, vocab, sampling):
    logits = torch.zeros(3, vocab)
    logits[1, 2 if broken != -math.inf else slice(None)] = broken
    draws = [RandomStream(0, row) for row in range(3)]
    for choose in (sample, _sample_together):
        with pytest.raises(LabError, match=rf"^the logits of row 1 {fault}; the weights or an"):
            choose(logits, [sampling] * 3, draws)
        with pytest.raises(LabError, match=rf"^the logits {fault}; "):
            choose(logits[1:2], [sampling], draws[:1])
    with pytest.raises(LabError, match=rf"^the logits {fault}; "):
        filter_tokens(logits[1], sampling)


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p", "seed"])
@pytest.mark.parametrize("value", ["hot", "1", True, np.True_, math.nan, [1], 1j, {}])
def test_values_that_are_not_numbers_are_refused(name, value):
    with pytest.raises(LabError, match=rf"^{name} is .*; it must be "):
        Sampling(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_k", 2.5, "top_k is 2.5; it must be a whole number, 1 or more"),
        ("seed", True, "seed is True; it must be a whole number, 0 to 2^63-1"),
        ("temperature", "hot", "temperature is 'hot'; it must be a number, 0 or more"),
        ("temperature", None, "temperature is None; it must be a number, 0 or more"),
        ("temperature", math.inf, "temperature is inf; it must be 0 or more"),
        ("top_k", 0, "top_k is 0; it must be 1 or more"),
        ("top_p", 0, "top_p is 0; it must be above 0 and at most 1"),
        ("min_p", 1.5, "min_p is 1.5; it must be from 0 to 1"),
        ("seed", -1, "seed is -1; it must be 0 to 2^63-1"),
    ],
)
def test_a_refusal_names_the_value_and_the_bounds(name, value, message):
    with pytest.raises(LabError) as refusal:
        Sampling(**{name: value})
    assert str(refusal.value) == message


def test_numbers_of_numpy_and_torch_are_accepted():
    sampling = Sampling(np.float32(0.5), np.int64(4), 1.0, 0.0, torch.tensor(9))  # pyright: ignore[reportArgumentType]
    assert sampling == Sampling(0.5, 4, 1.0, 0.0, 9)
    assert (type(sampling.top_k), type(sampling.seed)) == (int, int)
    assert Sampling(top_k=None) == Sampling()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FILTERS)
def test_a_gpu_draws_what_a_cpu_draws(name):
    logits = 2 * torch.randn(4, 201_088, generator=torch.Generator().manual_seed(0))
    samplings = [*[Sampling(**FILTERS[name])] * 3, GREEDY]
    numbers = [FixedRandom(n) for n in (0.1, 0.7, 0.95, 0.0)]
    assert sample(logits.cuda(), samplings, numbers) == sample(logits, samplings, numbers)
    logits[2, 5] = math.nan
    with pytest.raises(LabError, match="row 2 contain NaN"):
        sample(logits.cuda(), samplings, numbers)
