"""The model on kernels gives the spelt-out model's logits: prefill, decoding, windows, padding."""

import pytest
import torch
from oss_kernels import backends

from oss_lab.cache import KVCache
from oss_lab.config import GPT_OSS_NANO
from oss_lab.loading import find_checkpoint, load_model
from oss_lab.model import Recorder
from oss_lab.model.with_kernels import KernelTransformer

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("numba", reason="numba is not installed")
LENGTHS = (1, 31, 32, 33, 70)
MARGIN = 1e-5  # of router logits; what float32 makes of them differs by about 1e-6
# Triton's interpreter takes seconds a token: fewer cases there.
CASES = [(name, length) for name in ("reference", "cpu") for length in LENGTHS] + [("triton", 33)]


@pytest.fixture(scope="module")
def spelt_out():
    return load_model(find_checkpoint("nano"))


def on(name: backends.Name, model) -> KernelTransformer:
    """The same weights, computed by other code."""
    with torch.device("meta"):
        other = KernelTransformer(model.config, backends.load(name))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval().requires_grad_(False)


def tokens(rng: torch.Generator, batch: int, seq: int) -> torch.Tensor:
    return torch.randint(0, GPT_OSS_NANO.vocab_size, (batch, seq), generator=rng)


def expected(model, ids, cache=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The spelt-out logits, and where the router is nearly tied in a layer: [batch seq]."""
    watch = Recorder(["moe.router_logits"])
    logits = model(ids, cache, taps=watch)
    layers = torch.stack([values[-1] for values in watch.seen.values()])
    best = layers.topk(model.config.experts_per_token + 1).values
    return logits, (best[..., -2] - best[..., -1] < MARGIN).any(0)


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor, tied: torch.Tensor) -> None:
    """Within rounding of float32 up to the first near-tie, where other experts may be chosen, which
    every later position sees. At least half of the positions count."""
    decided = (tied.cumsum(-1) == 0)[..., -ours.shape[-2] :]
    apart = (ours - theirs).abs().amax(-1)
    assert decided.float().mean() >= 0.5
    assert apart[decided].max() <= 1e-4, f"{apart}"


@pytest.mark.parametrize(("name", "length"), CASES)
def test_a_whole_sequence(rng, spelt_out, name, length):
    ids = tokens(rng, 1, length)
    assert_same_logits(on(name, spelt_out)(ids), *expected(spelt_out, ids))


@pytest.mark.parametrize(
    ("name", "history", "count"),
    [
        ("reference", "full", 40),
        ("cpu", "full", 40),
        ("cpu", "window", 40),
        ("triton", "full", 2),
        pytest.param("triton", "window", 2, marks=pytest.mark.slow),
    ],
)
def test_a_prompt_and_then_one_token_at_a_time(rng, spelt_out, name, history, count):
    ids = tokens(rng, 1, 33 + count)
    model, cache = on(name, spelt_out), KVCache(GPT_OSS_NANO, history=history)
    logits = [on("cpu", spelt_out)(ids[:, :33], cache)]
    logits += [model(ids[:, n : n + 1], cache) for n in range(33, 33 + count)]
    assert_same_logits(torch.cat(logits, dim=1), *expected(spelt_out, ids))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_unequal_prompts(rng, spelt_out, name):
    ids, padding = tokens(rng, 3, 40), torch.tensor([0, 7, 39])
    ours = on(name, spelt_out)(ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    theirs, tied = expected(spelt_out, ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    for row, skipped in enumerate(padding.tolist()):
        assert_same_logits(ours[row, skipped:], theirs[row, skipped:], tied[row, skipped:])


def test_who_looks_inside_gets_the_spelt_out_forward(rng, spelt_out):
    ids, recorder = tokens(rng, 1, 20), Recorder(["attn.pattern"])
    logits = on("cpu", spelt_out)(ids, taps=recorder)
    assert torch.equal(logits, spelt_out(ids))
    assert recorder.stacked("attn.pattern").shape == (4, 8, 20, 20)


def test_no_position_fills_the_cache_only(rng, spelt_out):
    ids, cache = tokens(rng, 2, 9), KVCache(GPT_OSS_NANO, 2)
    assert on("cpu", spelt_out)(ids, cache, last=0).shape == (2, 0, GPT_OSS_NANO.vocab_size)
    assert cache.length == 9


@pytest.mark.parametrize("last", [1, 5, None])
def test_the_last_positions_only(rng, spelt_out, last):
    ids = tokens(rng, 2, 9)
    ours = on("cpu", spelt_out)(ids, last=last)
    assert ours.shape == (2, 9 if last is None else last, GPT_OSS_NANO.vocab_size)
    theirs, tied = expected(spelt_out, ids)
    assert_same_logits(ours, theirs[:, -ours.shape[1] :], tied)
