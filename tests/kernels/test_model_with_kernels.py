"""The kernel engine gives the reference engine's logits: prefill, decoding, windows, padding, and
spans of keys as forks and ragged batches have them."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from oss_kernels import backends

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import load_model
from oss_lab.config import GPT_OSS_NANO
from oss_lab.engine.cache import KVCache, Together
from oss_lab.engine.choice import Engines
from oss_lab.engine.kernels import KernelEngine
from oss_lab.errors import LabError
from oss_lab.hooks.points import LINES, SHOWN_BY_KERNELS
from oss_lab.model import Recorder
from oss_lab.model.transformer import Transformer

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("numba", reason="numba is not installed")
LENGTHS = (1, 31, 32, 33, 70)
MARGIN = 1e-5  # of router logits; what float32 makes of them differs by about 1e-6
WINDOW = GPT_OSS_NANO.sliding_window
CASES = [(name, length) for name in ("reference", "cpu") for length in LENGTHS] + [("triton", 33)]


@pytest.fixture(scope="module")
def nano_model():
    return load_model(find_checkpoint("nano"))


@pytest.fixture(scope="module")
def corner(nano_model):
    """Its first sliding and full layer with a few of their experts, as Triton's interpreter takes
    seconds a layer."""
    config = replace(GPT_OSS_NANO, num_hidden_layers=2, num_experts=8, experts_per_token=2)
    with torch.device("meta"):
        model = Transformer(config)
    weights = nano_model.state_dict()
    kept = {
        name: weights[name][tuple(slice(size) for size in tensor.shape)]
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(kept, assign=True)
    return model.eval().requires_grad_(False)


def on(name: backends.Name, model: Transformer) -> KernelEngine:
    """The same weights, computed by other code."""
    return KernelEngine(model, backends.load(name))


def tokens(rng: torch.Generator, batch: int, seq: int) -> torch.Tensor:
    return torch.randint(0, GPT_OSS_NANO.vocab_size, (batch, seq), generator=rng)


def expected(model, ids, cache=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's logits, and where two experts of those chosen, or the last of them and the
    next, are nearly tied in a layer: [batch seq]."""
    watch = Recorder(["moe.router_logits"])
    logits = model(ids, cache, hooks=watch)
    layers = torch.stack([values[-1] for values in watch.seen.values()])
    best = layers.topk(model.config.experts_per_token + 1).values
    return logits, (best[..., :-1] - best[..., 1:] < MARGIN).any(-1).any(0)


def untied(
    rng: torch.Generator, model: Transformer, seq: int, begin: torch.Tensor | None = None
) -> torch.Tensor:
    """Tokens [1 seq] that begin with some and are nowhere nearly tied."""
    while True:
        ids = tokens(rng, 1, seq)
        if begin is not None:
            ids[:, : begin.shape[1]] = begin
        if not expected(model, ids)[1].any():
            return ids


def only(found: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and ties of the only row."""
    return found[0][0], found[1][0]


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor, tied: torch.Tensor) -> None:
    """Within rounding of float32 up to the first near-tie, where other experts may be chosen, which
    every later position sees. At least half of the positions count. `ours` may be the last ones."""
    decided = (tied.cumsum(-1) == 0)[..., -ours.shape[-2] :]
    apart = (ours - theirs[..., -ours.shape[-2] :, :]).abs().amax(-1)
    assert decided.float().mean() >= 0.5
    assert apart[decided].max() <= 1e-4, f"{apart}"


@pytest.mark.parametrize(("name", "length"), CASES)
def test_a_whole_sequence(rng, nano_model, corner, name, length):
    ids, model = tokens(rng, 1, length), corner if name == "triton" else nano_model
    assert_same_logits(on(name, model).forward(ids), *expected(model, ids))


@pytest.mark.parametrize(("name", "count"), [("reference", 40), ("cpu", 40), ("triton", 1)])
def test_a_prompt_and_then_one_token_at_a_time(rng, nano_model, corner, name, count):
    ids, model = tokens(rng, 1, 33 + count), corner if name == "triton" else nano_model
    kernels, cache = on(name, model), KVCache(model.config)
    logits = [on("cpu", model).forward(ids[:, :33], cache)]
    logits += [kernels.forward(ids[:, n : n + 1], cache) for n in range(33, 33 + count)]
    assert_same_logits(torch.cat(logits, dim=1), *expected(model, ids))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_unequal_prompts(rng, nano_model, name):
    ids, padding = tokens(rng, 3, 40), torch.tensor([0, 7, 39])
    ours = on(name, nano_model).forward(ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    theirs, tied = expected(nano_model, ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    for row, skipped in enumerate(padding.tolist()):
        assert_same_logits(ours[row, skipped:], theirs[row, skipped:], tied[row, skipped:])


@pytest.mark.parametrize(
    ("name", "left"), [("reference", [1]), ("cpu", [1]), ("cpu", [2, 1]), ("triton", [1])]
)
@pytest.mark.parametrize("is_together", [False, True])
def test_rows_with_padding_that_others_left(rng, nano_model, corner, name, left, is_together):
    """One that is left keeps its padding, alone and beside another cache."""
    model = corner if name == "triton" else nano_model
    padding, seq = [0, 7, 30], 41
    rows = [untied(rng, model, seq - skipped) for skipped in padding]
    ids = torch.cat([F.pad(row, (seq - row.shape[1], 0)) for row in rows])
    kernels, cache = on(name, model), KVCache(model.config, 3, padding=torch.tensor(padding))
    on("cpu", model).forward(ids[:, :-1], cache, last=0)
    cache.select(left)
    new = ids[left, -1:]
    if is_together:
        logits = kernels.forward(F.pad(new, (0, 0, 0, 1)), Together([cache, KVCache(model.config)]))
    else:
        logits = kernels.forward(new, cache)
    for ours, row in zip(logits, left, strict=False):
        assert_same_logits(ours, *only(expected(model, rows[row])))


BEGINS, PARTS = (1, WINDOW - 6, WINDOW + 13), ((12,), (1,) * 12, (5, 1, 6))
FORKS = [(name, at, sizes) for name in ("reference", "cpu") for at in BEGINS for sizes in PARTS]
FORKS += [("triton", WINDOW + 13, (2,)), ("triton", WINDOW - 6, (1,))]


@pytest.mark.parametrize(("name", "at", "sizes"), FORKS)
def test_a_fork_continues_as_a_single_run(rng, nano_model, corner, name, at, sizes):
    """Its prefix and its own tokens are two spans; both go past the sliding window."""
    model = corner if name == "triton" else nano_model
    other = untied(rng, model, WINDOW + 20)
    ids = untied(rng, model, at + sum(sizes), other[:, :at])
    kernels, parent = on(name, model), KVCache(model.config)
    on("cpu", model).forward(other[:, : WINDOW + 15], parent)
    child = parent.fork(at=at)
    logits = [kernels.forward(part, child) for part in ids[:, at:].split(sizes, dim=1)]
    assert_same_logits(torch.cat(logits, dim=1), *expected(model, ids))
    if name != "triton":
        again = kernels.forward(other[:, WINDOW + 15 :], parent)
        assert_same_logits(again, *expected(model, other))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [(name, sizes) for name in ("reference", "cpu") for sizes in ((5,), (1,) * 5, (2, 3))]
    + [("triton", (2,))],
)
def test_caches_of_different_lengths_are_read_together_as_each_alone(
    rng, nano_model, corner, name, sizes
):
    """A long one, one with padding, one forked into two rows, and one of few tokens."""
    model = corner if name == "triton" else nano_model
    kernels, first, count = on(name, model), on("cpu", model), sum(sizes)
    lengths = (WINDOW + 30, WINDOW + 9, 2, 25, 25, 3)
    rows = [untied(rng, model, length + count) for length in lengths]
    rows[4] = untied(rng, model, 25 + count, rows[3][:, :25])
    prompts = [ids[:, :-count] for ids in rows]
    new = torch.cat([ids[:, -count:] for ids in rows])
    long, few, prefix = (KVCache(model.config) for _ in range(3))
    padded = KVCache(model.config, 2, padding=torch.tensor([0, WINDOW + 7]))
    short = torch.cat((torch.zeros(1, WINDOW + 7, dtype=torch.long), prompts[2]), dim=1)
    for ids, cache in ((prompts[0], long), (torch.cat((prompts[1], short)), padded),
                       (prompts[3], prefix), (prompts[5], few)):  # fmt: skip
        first.forward(ids, cache, last=0)
    past = Together([long, padded, prefix.fork(2), few])
    logits = torch.cat([kernels.forward(part, past) for part in new.split(sizes, dim=1)], dim=1)
    for ours, ids in zip(logits, rows, strict=True):
        assert_same_logits(ours, *only(expected(model, ids)))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_kernels_show_what_they_hand_out(rng, nano_model, name):
    ids, shown = tokens(rng, 1, 140), Recorder(SHOWN_BY_KERNELS)
    kernels = on(name, nano_model)
    assert kernels.refusal(SHOWN_BY_KERNELS, ()) is None
    logits = kernels.forward(ids, hooks=shown)
    assert torch.equal(logits, kernels.forward(ids))
    theirs = Recorder(SHOWN_BY_KERNELS)
    nano_model(ids, hooks=theirs)
    assert shown.seen.keys() == theirs.seen.keys()
    same = int((expected(nano_model, ids)[1].cumsum(-1) == 0).sum())
    assert same >= 70
    for key, (ours,) in shown.seen.items():
        (other,) = theirs.seen[key]
        if key[0] == "attn.sink":
            assert torch.equal(ours, other)
            continue
        seq = 2 if ours.dim() > 2 and ours.shape[2] == 140 else 1
        ours, other = ours.narrow(seq, 0, same), other.narrow(seq, 0, same)
        torch.testing.assert_close(ours.float(), other.float(), atol=1e-4, rtol=1e-4)


def test_a_change_reaches_the_kernels(rng, nano_model):
    def silence(point, layer, x):
        return x * 0 if (point, layer) == ("moe.out", 1) else x

    ids, kernels = tokens(rng, 1, 20), on("cpu", nano_model)
    assert kernels.refusal((), ["moe.out"]) is None
    ours, theirs = (run(ids, hooks=silence)[0, :5] for run in (kernels.forward, nano_model))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_each_row_may_have_its_own_sinks(rng, nano_model):
    def change(point, layer, x):
        return x + torch.arange(len(x))[:, None] if point == "attn.sink" else x

    ids, kernels = tokens(rng, 3, 20), on("cpu", nano_model)
    ours, theirs = (run(ids, hooks=change)[:, :5] for run in (kernels.forward, nano_model))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours[1:] - nano_model(ids)[1:, :5]).abs().max() > 1e-3


@pytest.mark.parametrize("late", ["moe.router_logits", "moe.expert_ids"])
def test_a_change_that_comes_too_late_for_the_kernels_is_left_to_the_reference(nano_model, late):
    engines = Engines(nano_model, backends.load("cpu"), is_auto=True)
    assert engines.choose([late]).engine is engines.kernels
    chosen = engines.choose(writes=[late])
    assert chosen.engine is engines.reference
    assert (chosen.reason or "").startswith(f"a change of {late}: ")
    with pytest.raises(LabError, match=rf"^the cpu kernels cannot .*\(a change of {late}: "):
        Engines(nano_model, backends.load("cpu")).choose(writes=[late])


@pytest.mark.parametrize("inside", sorted(LINES - SHOWN_BY_KERNELS))
def test_who_looks_further_inside_gets_the_reference(nano_model, inside):
    engines = Engines(nano_model, backends.load("cpu"), is_auto=True)
    for chosen in (engines.choose([inside]), engines.choose(writes=[inside])):
        assert chosen.engine is engines.reference
        assert (chosen.reason or "").startswith(f"{inside}: ")
    with pytest.raises(LabError, match=rf"^the cpu kernels cannot .*\({inside}: "):
        Engines(nano_model, backends.load("cpu")).choose([inside])


def test_no_position_fills_the_cache_only(rng, nano_model):
    ids, cache = tokens(rng, 2, 9), KVCache(GPT_OSS_NANO, 2)
    assert on("cpu", nano_model).forward(ids, cache, last=0).shape == (
        2,
        0,
        GPT_OSS_NANO.vocab_size,
    )
    assert cache.length == 9


@pytest.mark.parametrize("last", [1, 5, None])
def test_the_last_positions_only(rng, nano_model, last):
    ids = tokens(rng, 2, 9)
    ours = on("cpu", nano_model).forward(ids, last=last)
    assert ours.shape == (2, 9 if last is None else last, GPT_OSS_NANO.vocab_size)
    theirs, tied = expected(nano_model, ids)
    assert_same_logits(ours, theirs, tied)
