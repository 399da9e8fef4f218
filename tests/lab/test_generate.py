"""Generation: tokens are the model's own, filters do what they say, rows are independent."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import (
    GREEDY,
    Sampling,
    Token,
    choose,
    filtered,
    generate,
    prefill,
    sequence_logits,
)
from oss_lab.errors import LabError


@pytest.fixture(scope="module")
def model(random_model, tiny_config):
    return random_model(tiny_config, seed=1)


def batch(model, prompts, **options) -> list[list[Token]]:
    """The tokens of each row."""
    tokens: list[list[Token]] = [[] for _ in prompts]
    for row, token in generate(model, prompts, **({"stop": (), "max_tokens": 6} | options)):
        tokens[row].append(token)
    return tokens


def said(model, prompt, **options) -> list[Token]:
    """The tokens that follow one prompt."""
    return batch(model, [prompt], **options)[0]


def ids(tokens):
    return [token.id for token in tokens]


def prompt(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(96, (length,), generator=generator).tolist()


@pytest.mark.parametrize("length", [1, 9, 600])  # 600 is more than a chunk of the prefill
def test_greedy_is_the_argmax_of_whole_forwards(model, length):
    tokens = said(model, prompt(length), alternatives=3)
    for n, token in enumerate(tokens):
        logits = model(torch.tensor([prompt(length) + ids(tokens)[:n]]))[0, -1]
        expected = logits.log_softmax(-1)
        top = expected.topk(3)
        assert top.values[0] - top.values[1] > 1e-4, "a near tie: choose another seed"
        assert token.id == top.indices[0]
        assert token.logprob == pytest.approx(top.values[0].item(), abs=1e-4)
        assert [id for id, _ in token.alternatives] == top.indices.tolist()
        listed = [logprob for _, logprob in token.alternatives]
        assert listed == pytest.approx(top.values.tolist(), abs=1e-4)
        assert listed == sorted(listed, reverse=True)
        assert not token.forced


def test_logprobs_are_of_the_model_not_of_the_filters(model):
    sampling = Sampling(temperature=3.0, top_k=4, seed=0)
    tokens = said(model, prompt(5), sampling=sampling)
    logits = model(torch.tensor([prompt(5) + ids(tokens)]))[0, 4:-1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(ids(tokens))[:, None])[:, 0]
    assert [token.logprob for token in tokens] == pytest.approx(expected.tolist(), abs=1e-4)


def brute_force(probabilities, temperature, top_k, top_p, min_p):
    """The filters one after the other, in plain Python."""
    powers = {id: p ** (1 / temperature) for id, p in enumerate(probabilities) if p > 0}
    order = sorted(powers, key=lambda id: -powers[id])[:top_k]
    total, reached, kept = sum(powers[id] for id in order), 0.0, []
    for id in order:
        if reached < top_p:
            kept.append(id)
            reached += powers[id] / total
    kept = [id for id in kept if powers[id] >= min_p * powers[kept[0]]]
    total = sum(powers[id] for id in kept)
    return {id: powers[id] / total for id in kept}


@pytest.mark.parametrize("probabilities", [[0.4, 0.05, 0.3, 0.2, 0, 0.05], [1.0, 0.0], [0.6, 0.4]])
def test_filters_against_brute_force(probabilities):
    # No bound falls on a sum of probabilities, where rounding would decide.
    for settings in itertools.product(
        (0.5, 1.0, 2.0), (None, 1, 2, 4, 99), (1e-9, 0.35, 0.65, 0.87, 1.0), (0.0, 0.3, 0.7, 1.0)
    ):
        kept, shares = filtered(torch.tensor(probabilities).log(), Sampling(*settings))
        expected = brute_force(probabilities, *settings)
        found = dict(zip(kept.tolist(), shares.tolist(), strict=True))
        assert set(found) == set(expected), settings
        assert found == pytest.approx(expected, abs=1e-6), settings


def test_top_p_counts_what_top_k_left():
    # 0.5 of the whole is 0.625 of what top_k=2 leaves: one token reaches 0.6, not two.
    logprobs = torch.tensor([0.5, 0.3, 0.2]).log()
    assert filtered(logprobs, Sampling(top_k=2, top_p=0.6))[0].tolist() == [0]
    assert filtered(logprobs, Sampling(top_p=0.6))[0].tolist() == [0, 1]


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-3])
def test_the_smallest_temperatures_are_greedy_and_finite(temperature):
    logprobs = torch.tensor([-3.0, -0.5, -torch.inf, -1.0])
    kept, shares = filtered(logprobs, Sampling(temperature=temperature))
    assert kept[0] == 1
    assert shares[0] == pytest.approx(1.0)


def test_draws_follow_the_probabilities():
    logprobs, draw = torch.tensor([0.5, 0.3, 0.2]).log(), torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.tensor([choose(logprobs, Sampling(), draw) for _ in range(4000)]))
    assert (counts / 4000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_a_seed_gives_the_same_reply_whatever_the_batch(model):
    prompts = [prompt(7, 1), prompt(3, 2), prompt(12, 3)]
    together = batch(model, prompts, sampling=Sampling(seed=5), max_tokens=8)
    for row, alone in enumerate(prompts):
        sampling = Sampling(seed=5 + row)
        assert ids(said(model, alone, sampling=sampling, max_tokens=8)) == ids(together[row])
    other = batch(model, prompts, sampling=Sampling(seed=50), max_tokens=8)
    assert list(map(ids, other)) != list(map(ids, together))
    fresh = [said(model, prompts[0], sampling=Sampling(), max_tokens=8) for _ in range(2)]
    assert ids(fresh[0]) != ids(fresh[1])


def test_generation_leaves_the_global_random_numbers_alone(model):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    said(model, prompt(2), sampling=Sampling())
    assert torch.equal(torch.rand(1), expected)


def test_a_batch_says_what_its_rows_say_alone(model):
    prompts = [prompt(length, length) for length in (1, 14, 9, 30)]
    together = batch(model, prompts, max_tokens=10)
    for row, alone in enumerate(prompts):
        single = said(model, alone, max_tokens=10)
        assert ids(single) == ids(together[row])
        expected = [token.logprob for token in single]
        assert [token.logprob for token in together[row]] == pytest.approx(expected, abs=1e-4)


def test_each_row_ends_at_its_own_stop_token(model):
    prompts = [prompt(6, 4), prompt(11, 5), prompt(2, 6)]
    free = batch(model, prompts, max_tokens=12)
    stop = {free[0][3].id, free[1][7].id}
    for row, tokens in enumerate(batch(model, prompts, max_tokens=12, stop=stop)):
        whole = ids(free[row])
        ends = [n for n, id in enumerate(whole) if id in stop]
        assert ids(tokens) == (whole[: ends[0] + 1] if ends else whole)


def test_the_context_ends_each_row_where_it_is_full(random_model, tiny_config):
    config = replace(tiny_config, initial_context_length=64, rope_scaling_factor=1.0)
    short = random_model(config)
    rows = batch(short, [prompt(60), prompt(50), prompt(63)], max_tokens=10)
    assert [len(row) for row in rows] == [4, 10, 1]
    with pytest.raises(LabError, match="64 tokens; the context is 64"):
        generate(short, [prompt(64)], stop=(), max_tokens=1)
    assert sequence_logits(short, prompt(64)).shape == (64, 96)  # reading may fill it
    with pytest.raises(LabError, match="65 tokens"):
        sequence_logits(short, prompt(65))


def test_unusable_ids_are_never_chosen(model):
    usable = torch.arange(96) < 3
    for sampling in (GREEDY, Sampling(temperature=50.0, seed=1)):
        tokens = said(model, prompt(4), sampling=sampling, usable=usable, max_tokens=60)
        assert set(ids(tokens)) <= {0, 1, 2}


def test_forced_tokens_are_marked_and_keep_the_models_logprob(model):
    wanted = iter([None, 42, None])
    tokens = said(model, prompt(4), max_tokens=3, force=lambda row: next(wanted))
    assert [token.forced for token in tokens] == [False, True, False]
    assert tokens[1].id == 42
    logits = model(torch.tensor([[*prompt(4), tokens[0].id]]))[0, -1]
    assert tokens[1].logprob == pytest.approx(logits.log_softmax(-1)[42].item(), abs=1e-4)


def test_a_filled_cache_is_gone_on_from(model):
    start, cache = prompt(20), KVCache(model.config)
    prefill(model, torch.tensor([start[:12]]), cache)
    expected = said(model, start)
    assert ids(said(model, start, cache=cache.fork())) == ids(expected)
    with pytest.raises(LabError, match="shorter than the single prompt"):
        generate(model, [start[:12]], stop=(), max_tokens=1, cache=cache)


@pytest.mark.parametrize("last", [1, 5, 511, 512, 513, 600, 9999, None])
def test_logits_in_chunks_are_those_of_one_forward(model, last):
    whole = model(torch.tensor([prompt(600)]))[0]
    chunked = sequence_logits(model, prompt(600), last)
    assert chunked.dtype == torch.float32
    expected = whole if last is None else whole[-last:]
    torch.testing.assert_close(chunked, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_sampling_refuses_what_is_out_of_bounds(options, sentence):
    with pytest.raises(LabError, match=sentence):
        Sampling(**options)


@pytest.mark.parametrize(
    ("prompts", "options", "sentence"),
    [
        ([], {}, "no prompt"),
        ([[]], {}, "the prompt is empty"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1, 96]], {}, "id 96 at position 1; the vocabulary has ids 0 to 95"),
        ([[-1]], {}, "id -1 at position 0"),
        ([[1]], {"max_tokens": 0}, "max_tokens is 0"),
        ([[1]], {"alternatives": -1}, "alternatives is -1"),
        ([[1]], {"alternatives": 97}, "from 0 to 96"),
    ],
)
def test_mistakes_are_refused_at_once(model, prompts, options, sentence):
    with pytest.raises(LabError, match=sentence):
        generate(model, prompts, **{"stop": (), "max_tokens": 1} | options)
