"""The model on kernels gives the spelt-out model's logits: prefill, decoding, windows, padding."""

from dataclasses import replace

import pytest
import torch
from oss_kernels import backends

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.config import GPT_OSS_NANO
from oss_lab.engine.cache import KVCache
from oss_lab.engine.kernel_model import KernelTransformer
from oss_lab.engine.loading import load_model
from oss_lab.hooks.points import SHOWN_BY_KERNELS
from oss_lab.model import Recorder
from oss_lab.model.transformer import Transformer

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("numba", reason="numba is not installed")
LENGTHS = (1, 31, 32, 33, 70)
MARGIN = 1e-5  # of router logits; what float32 makes of them differs by about 1e-6
CASES = [(name, length) for name in ("reference", "cpu") for length in LENGTHS] + [("triton", 33)]


@pytest.fixture(scope="module")
def spelt_out():
    return load_model(find_checkpoint("nano"))


@pytest.fixture(scope="module")
def corner(spelt_out):
    """Its first sliding and full layer with a few of their experts, as Triton's interpreter takes
    seconds a layer."""
    config = replace(GPT_OSS_NANO, num_hidden_layers=2, num_experts=8, experts_per_token=2)
    with torch.device("meta"):
        model = Transformer(config)
    weights = spelt_out.state_dict()
    kept = {
        name: weights[name][tuple(slice(size) for size in tensor.shape)]
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(kept, assign=True)
    return model.eval().requires_grad_(False)


def on(name: backends.Name, model) -> KernelTransformer:
    """The same weights, computed by other code."""
    with torch.device("meta"):
        other = KernelTransformer(model.config, backends.load(name))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval().requires_grad_(False)


def tokens(rng: torch.Generator, batch: int, seq: int) -> torch.Tensor:
    return torch.randint(0, GPT_OSS_NANO.vocab_size, (batch, seq), generator=rng)


def expected(model, ids, cache=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The spelt-out logits, and where two experts of those chosen, or the last of them and the
    next, are nearly tied in a layer: [batch seq]."""
    watch = Recorder(["moe.router_logits"])
    logits = model(ids, cache, taps=watch)
    layers = torch.stack([values[-1] for values in watch.seen.values()])
    best = layers.topk(model.config.experts_per_token + 1).values
    return logits, (best[..., :-1] - best[..., 1:] < MARGIN).any(-1).any(0)


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor, tied: torch.Tensor) -> None:
    """Within rounding of float32 up to the first near-tie, where other experts may be chosen, which
    every later position sees. At least half of the positions count."""
    decided = (tied.cumsum(-1) == 0)[..., -ours.shape[-2] :]
    apart = (ours - theirs).abs().amax(-1)
    assert decided.float().mean() >= 0.5
    assert apart[decided].max() <= 1e-4, f"{apart}"


@pytest.mark.parametrize(("name", "length"), CASES)
def test_a_whole_sequence(rng, spelt_out, corner, name, length):
    ids, model = tokens(rng, 1, length), corner if name == "triton" else spelt_out
    assert_same_logits(on(name, model)(ids), *expected(model, ids))


@pytest.mark.parametrize(
    ("name", "history", "count"),
    [
        ("reference", "full", 40),
        ("cpu", "full", 40),
        ("cpu", "window", 40),
        ("triton", "full", 1),
        pytest.param("triton", "window", 2, marks=pytest.mark.slow),
    ],
)
def test_a_prompt_and_then_one_token_at_a_time(rng, spelt_out, corner, name, history, count):
    ids, model = tokens(rng, 1, 33 + count), corner if name == "triton" else spelt_out
    kernels, cache = on(name, model), KVCache(model.config, history=history)
    logits = [on("cpu", model)(ids[:, :33], cache)]
    logits += [kernels(ids[:, n : n + 1], cache) for n in range(33, 33 + count)]
    assert_same_logits(torch.cat(logits, dim=1), *expected(model, ids))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_unequal_prompts(rng, spelt_out, name):
    ids, padding = tokens(rng, 3, 40), torch.tensor([0, 7, 39])
    ours = on(name, spelt_out)(ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    theirs, tied = expected(spelt_out, ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    for row, skipped in enumerate(padding.tolist()):
        assert_same_logits(ours[row, skipped:], theirs[row, skipped:], tied[row, skipped:])


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_kernels_show_what_they_hand_out(rng, spelt_out, name):
    ids, shown = tokens(rng, 1, 140), Recorder(SHOWN_BY_KERNELS)
    kernels = on(name, spelt_out)
    assert kernels.computed_by(shown) == name
    logits = kernels(ids, taps=shown)
    assert torch.equal(logits, kernels(ids))
    theirs = Recorder(SHOWN_BY_KERNELS)
    spelt_out(ids, taps=theirs)
    assert shown.seen.keys() == theirs.seen.keys()
    same = int((expected(spelt_out, ids)[1].cumsum(-1) == 0).sum())
    assert same >= 70
    for key, (ours,) in shown.seen.items():
        (other,) = theirs.seen[key]
        if key[0] == "attn.sink":
            assert torch.equal(ours, other)
            continue
        seq = 2 if ours.dim() > 2 and ours.shape[2] == 140 else 1
        ours, other = ours.narrow(seq, 0, same), other.narrow(seq, 0, same)
        torch.testing.assert_close(ours.float(), other.float(), atol=1e-4, rtol=1e-4)


def test_a_change_reaches_the_kernels(rng, spelt_out):
    class Silence:
        points = writes = ("moe.out",)

        def __call__(self, layer):
            return lambda name, x: x * 0 if name == "moe.out" and layer == 1 else x

    ids, kernels = tokens(rng, 1, 20), on("cpu", spelt_out)
    assert kernels.computed_by(Silence()) == "cpu"
    ours, theirs = (model(ids, taps=Silence())[0, :5] for model in (kernels, spelt_out))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("late", ["moe.router_logits", "moe.expert_ids"])
def test_a_change_that_comes_too_late_for_the_kernels_is_made_in_the_spelt_out_forward(
    rng, spelt_out, late
):
    class Turned:
        points = writes = (late,)

        def __call__(self, layer):
            return lambda name, x: x.flip(1) if name == late else x  # other tokens' choices

    ids, kernels = tokens(rng, 1, 20), on("cpu", spelt_out)
    assert kernels.computed_by(Turned()) == "reference"
    logits = kernels(ids, taps=Turned())
    assert torch.equal(logits, spelt_out(ids, taps=Turned()))
    assert (logits - spelt_out(ids)).abs().max() > 1e-3


def test_who_looks_further_inside_gets_the_spelt_out_forward(rng, spelt_out):
    ids, recorder = tokens(rng, 1, 20), Recorder(["attn.pattern"])
    assert on("cpu", spelt_out).computed_by(recorder) == "reference"
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
