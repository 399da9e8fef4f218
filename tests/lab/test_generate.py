"""Generation: tokens follow the model, filters do what they document, rows are independent."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from oss_lab.engine.batch import Batch
from oss_lab.engine.cache import KVCache
from oss_lab.engine.read import read_logits
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.engine.request import Request, check_tokens
from oss_lab.engine.sampler import filter_tokens, sample
from oss_lab.engine.sampling import GREEDY, RandomStream, Sampling
from oss_lab.errors import LabError
from oss_lab.hooks.selection import Selection
from oss_lab.record.token import Token


@pytest.fixture(scope="module")
def model(random_model, tiny_config):
    return random_model(tiny_config, seed=1)


def requests(prompts, **options) -> list[Request]:
    """One request per prompt; each samples as the row of its number."""
    given: Any = {"max_tokens": 6} | options
    return [replace(Request(tuple(ids), stream_number=n), **given) for n, ids in enumerate(prompts)]


def batch(model, prompts, usable=None, **options) -> list[list[Token]]:
    """The generated tokens of each row."""
    made = Batch(ReferenceEngine(model), usable=usable)
    rows = made.add(requests(prompts, **options))
    for row, token in made:
        assert row.tokens[-1] is token
    return [row.tokens for row in rows]


def generate_one(model, prompt, **options) -> list[Token]:
    """The tokens generated after one prompt."""
    return batch(model, [prompt], **options)[0]


def logits_of(model, prompt, last=None) -> torch.Tensor:
    return read_logits(ReferenceEngine(model), requests([prompt], max_tokens=0), last)[0]


def ids(tokens):
    return [token.id for token in tokens]


def prompt(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(96, (length,), generator=generator).tolist()


@pytest.mark.parametrize("length", [1, 9, 600])  # 600 is longer than one prefill chunk
def test_greedy_is_the_argmax_of_full_forward_passes(model, length):
    tokens = generate_one(model, prompt(length), alternatives=3)
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


def test_logprobs_come_from_the_model_before_filtering(model):
    sampling = Sampling(temperature=3.0, top_k=4, seed=0)
    tokens = generate_one(model, prompt(5), sampling=sampling)
    logits = model(torch.tensor([prompt(5) + ids(tokens)]))[0, 4:-1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(ids(tokens))[:, None])[:, 0]
    assert [token.logprob for token in tokens] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-3])
def test_the_smallest_temperatures_are_greedy_and_finite(temperature):
    logprobs = torch.tensor([-3.0, -0.5, -torch.inf, -1.0])
    ids, shares = filter_tokens(logprobs, Sampling(temperature=temperature))
    assert ids[0] == 1
    assert shares[0] == pytest.approx(1.0)
    assert sample(logprobs[None], [Sampling(temperature=temperature)], [RandomStream(0, 0)]) == [1]


def test_a_seed_gives_the_same_reply_whatever_the_batch(model):
    prompts = [prompt(7, 1), prompt(3, 2), prompt(12, 3)]
    together = batch(model, prompts, sampling=Sampling(seed=5), max_tokens=8)
    for row, alone in enumerate(prompts):
        single = generate_one(
            model, alone, sampling=Sampling(seed=5), stream_number=row, max_tokens=8
        )
        assert ids(single) == ids(together[row])
    other = batch(model, prompts, sampling=Sampling(seed=50), max_tokens=8)
    assert list(map(ids, other)) != list(map(ids, together))
    first = generate_one(model, prompts[1], sampling=Sampling(seed=6), max_tokens=8)
    assert ids(first) != ids(together[1])  # seed 6 has its own random numbers
    fresh = [generate_one(model, prompts[0], sampling=Sampling(), max_tokens=8) for _ in range(2)]
    assert ids(fresh[0]) != ids(fresh[1])


def test_generation_leaves_the_global_random_numbers_alone(model):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    generate_one(model, prompt(2), sampling=Sampling())
    assert torch.equal(torch.rand(1), expected)


def test_a_batch_gives_the_tokens_of_each_row_alone(model):
    prompts = [prompt(length, length) for length in (1, 14, 9, 30)]
    together = batch(model, prompts, max_tokens=10)
    for row, alone in enumerate(prompts):
        single = generate_one(model, alone, max_tokens=10)
        assert ids(single) == ids(together[row])
        expected = [token.logprob for token in single]
        assert [token.logprob for token in together[row]] == pytest.approx(expected, abs=1e-4)


def test_each_row_ends_at_its_own_stop_token(model):
    prompts = [prompt(6, 4), prompt(11, 5), prompt(2, 6)]
    free = batch(model, prompts, max_tokens=12)
    stop = frozenset({free[0][3].id, free[1][7].id})
    for row, tokens in enumerate(batch(model, prompts, max_tokens=12, stop=stop)):
        whole = ids(free[row])
        ends = [n for n, id in enumerate(whole) if id in stop]
        assert ids(tokens) == (whole[: ends[0] + 1] if ends else whole)


def test_each_row_ends_when_its_context_is_full(random_model, tiny_config):
    config = replace(tiny_config, initial_context_length=64, rope_scaling_factor=1.0)
    short = random_model(config)
    rows = batch(short, [prompt(60), prompt(50), prompt(63)], max_tokens=10)
    assert [len(row) for row in rows] == [4, 10, 1]
    with pytest.raises(LabError, match="64 tokens; the context is 64"):
        batch(short, [prompt(64)], max_tokens=1)
    assert logits_of(short, prompt(64)).shape == (64, 96)  # a prompt may fill the context
    check_tokens(prompt(64), config)
    with pytest.raises(LabError, match="65 tokens"):
        check_tokens(prompt(65), config)


def test_unusable_ids_are_never_chosen(model):
    usable = torch.arange(96) < 3
    for sampling in (GREEDY, Sampling(temperature=50.0, seed=1)):
        tokens = generate_one(model, prompt(4), sampling=sampling, usable=usable, max_tokens=60)
        assert set(ids(tokens)) <= {0, 1, 2}


def test_forced_tokens_are_marked_and_keep_the_models_logprob(model):
    made = Batch(ReferenceEngine(model))
    (row,) = made.add(requests([prompt(4)], max_tokens=3))
    made.step()
    row.forced.append(42)
    made.step()
    assert len(made.step()) == 1
    assert (made.rows, made.step()) == ([], [])
    assert [token.forced for token in row.tokens] == [False, True, False]
    assert row.tokens[1].id == 42
    logits = model(torch.tensor([[*prompt(4), row.tokens[0].id]]))[0, -1]
    expected = logits.log_softmax(-1)[42].item()
    assert row.tokens[1].logprob == pytest.approx(expected, abs=1e-4)


def test_a_filled_cache_is_continued(model):
    start, cache = prompt(20), KVCache(model.config)
    model(torch.tensor([start[:12]]), cache)
    expected = generate_one(model, start)
    made = Batch(ReferenceEngine(model))
    (row,) = made.add(requests([start]), cache.fork())
    assert [token.id for _, token in made] == ids(row.tokens) == ids(expected)
    for prompts in ([start[:12]], [start, start]):
        with pytest.raises(LabError, match="shorter than the single prompt"):
            Batch(ReferenceEngine(model)).add(requests(prompts), cache)
    assert cache.length == 12
    asked = requests([start])
    recording = [replace(asked[0], selection=Selection(("embed",)))]
    padded = KVCache(model.config, padding=torch.tensor([2]))
    for given, held, sentence in (
        (asked, padded, "2 slots of padding"),
        (recording, cache, "12 tokens in the cache are not computed again"),
    ):
        with pytest.raises(LabError, match=sentence):
            Batch(ReferenceEngine(model)).add(given, held)


@pytest.mark.parametrize("when", ["sampled", "read"])
def test_a_step_interrupted_at_its_end_can_be_repeated(model, monkeypatch, when):
    def write(interrupt):
        engine = ReferenceEngine(model)
        made = Batch(engine)
        (row,) = made.add(
            requests([prompt(4)], sampling=Sampling(temperature=1.0, seed=5), max_tokens=6)
        )
        row.forced.append(42)
        made.step()
        if interrupt:
            with monkeypatch.context() as patch:
                if when == "sampled":
                    patch.setattr("oss_lab.engine.next_token.Token", stop)
                else:
                    compute = engine.forward
                    patch.setattr(engine, "forward", lambda *a, **o: stop(compute(*a, **o)))
                with pytest.raises(KeyboardInterrupt):
                    made.step()
        return [token.id for _, token in made]

    def stop(*_):
        raise KeyboardInterrupt

    assert write(interrupt=True) == write(interrupt=False)


@pytest.mark.parametrize("last", [1, 5, 511, 512, 513, 600, 9999, None])
def test_logits_in_chunks_are_those_of_one_forward(model, last):
    whole = model(torch.tensor([prompt(600)]))[0]
    chunked = logits_of(model, prompt(600), last)
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
def test_sampling_refuses_values_out_of_bounds(options, sentence):
    with pytest.raises(LabError, match=sentence):
        Sampling(**options)


@pytest.mark.parametrize(
    ("prompts", "options", "sentence"),
    [
        ([], {}, "at least one prompt"),
        ([[]], {}, "the prompt is empty"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1, 96]], {}, "id 96 at position 1; the vocabulary has ids 0 to 95"),
        ([[-1]], {}, "id -1 at position 0"),
        ([[1]], {"alternatives": -1}, "alternatives is -1"),
        ([[1]], {"alternatives": 97}, "from 0 to 96"),
    ],
)
def test_mistakes_are_refused_before_generation(model, prompts, options, sentence):
    made = Batch(ReferenceEngine(model))
    with pytest.raises(LabError, match=sentence):
        made.add(requests(prompts, **({"max_tokens": 1} | options)))
    assert made.rows == []
