"""The kernel engine gives the reference engine's logits: prefill, decoding, windows, padding, and
spans of keys as in forks and ragged batches."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from oss_kernels import backends

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import load_model
from oss_lab.config import GPT_OSS_NANO
from oss_lab.engine.cache import JoinedCaches, KVCache
from oss_lab.engine.choice import Engines
from oss_lab.engine.kernels import KernelEngine
from oss_lab.errors import LabError
from oss_lab.hooks.points import FORWARD_POINTS, RECORDABLE_IN_KERNELS
from oss_lab.model import Recorder
from oss_lab.model.transformer import Transformer

pytest.importorskip("triton", reason="triton is not installed")
pytest.importorskip("numba", reason="numba is not installed")
LENGTHS = (1, 31, 32, 33, 70)
MARGIN = 1e-5  # of router logits; float32 implementations differ by about 1e-6
WINDOW = GPT_OSS_NANO.sliding_window
CASES = [(name, length) for name in ("reference", "cpu") for length in LENGTHS] + [("triton", 33)]


@pytest.fixture(scope="module")
def nano_model():
    return load_model(find_checkpoint("nano"))


@pytest.fixture(scope="module")
def small_model(nano_model):
    """nano's first sliding layer and first full layer with a few of their experts, because Triton's
    interpreter takes seconds per layer."""
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


def with_kernels(name: backends.KernelName, model: Transformer) -> KernelEngine:
    """The same weights, computed by the named kernels."""
    return KernelEngine(model, backends.load_backend(name))


def tokens(rng: torch.Generator, batch: int, seq: int) -> torch.Tensor:
    return torch.randint(0, GPT_OSS_NANO.vocab_size, (batch, seq), generator=rng)


def run_reference(model, ids, cache=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's logits [batch seq vocab], and whether any layer has a near-tie [batch seq]:
    between two chosen experts, or between the last chosen expert and the next."""
    watch = Recorder(["moe.router_logits"])
    logits = model(ids, cache, hooks=watch)
    layers = torch.stack([values[-1] for values in watch.seen.values()])
    best = layers.topk(model.config.experts_per_token + 1).values
    return logits, (best[..., :-1] - best[..., 1:] < MARGIN).any(-1).any(0)


def untied_tokens(
    rng: torch.Generator, model: Transformer, seq: int, begin: torch.Tensor | None = None
) -> torch.Tensor:
    """Tokens [1 seq] that start with `begin` and have no near-tie at any position."""
    while True:
        ids = tokens(rng, 1, seq)
        if begin is not None:
            ids[:, : begin.shape[1]] = begin
        if not run_reference(model, ids)[1].any():
            return ids


def only_row(found: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits and ties of the only row."""
    return found[0][0], found[1][0]


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor, tied: torch.Tensor) -> None:
    """Equal up to float32 rounding until the first near-tie. There the engines may choose different
    experts, and all later positions depend on that choice. At least half of the positions count.
    `ours` may have the last positions only."""
    decided = (tied.cumsum(-1) == 0)[..., -ours.shape[-2] :]
    apart = (ours - theirs[..., -ours.shape[-2] :, :]).abs().amax(-1)
    assert decided.float().mean() >= 0.5
    assert apart[decided].max() <= 1e-4, f"{apart}"


@pytest.mark.parametrize(("name", "length"), CASES)
def test_a_whole_sequence(rng, nano_model, small_model, name, length):
    ids, model = tokens(rng, 1, length), small_model if name == "triton" else nano_model
    assert_same_logits(with_kernels(name, model).forward(ids), *run_reference(model, ids))


@pytest.mark.parametrize(("name", "count"), [("reference", 40), ("cpu", 40), ("triton", 1)])
def test_a_prompt_and_then_one_token_at_a_time(rng, nano_model, small_model, name, count):
    ids, model = tokens(rng, 1, 33 + count), small_model if name == "triton" else nano_model
    kernels, cache = with_kernels(name, model), KVCache(model.config)
    logits = [with_kernels("cpu", model).forward(ids[:, :33], cache)]
    logits += [kernels.forward(ids[:, n : n + 1], cache) for n in range(33, 33 + count)]
    assert_same_logits(torch.cat(logits, dim=1), *run_reference(model, ids))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_unequal_prompts(rng, nano_model, name):
    ids, padding = tokens(rng, 3, 40), torch.tensor([0, 7, 39])
    ours = with_kernels(name, nano_model).forward(ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    theirs, tied = run_reference(nano_model, ids, KVCache(GPT_OSS_NANO, 3, padding=padding))
    for row, skipped in enumerate(padding.tolist()):
        assert_same_logits(ours[row, skipped:], theirs[row, skipped:], tied[row, skipped:])


@pytest.mark.parametrize(
    ("name", "left"), [("reference", [1]), ("cpu", [1]), ("cpu", [2, 1]), ("triton", [1])]
)
@pytest.mark.parametrize("is_together", [False, True])
def test_rows_with_padding_after_others_have_left(
    rng, nano_model, small_model, name, left, is_together
):
    """A row that remains keeps its padding, both alone and next to another cache."""
    model = small_model if name == "triton" else nano_model
    padding, seq = [0, 7, 30], 41
    rows = [untied_tokens(rng, model, seq - skipped) for skipped in padding]
    ids = torch.cat([F.pad(row, (seq - row.shape[1], 0)) for row in rows])
    kernels, cache = (
        with_kernels(name, model),
        KVCache(model.config, 3, padding=torch.tensor(padding)),
    )
    with_kernels("cpu", model).forward(ids[:, :-1], cache, last=0)
    cache.select(left)
    new = ids[left, -1:]
    if is_together:
        logits = kernels.forward(
            F.pad(new, (0, 0, 0, 1)), JoinedCaches([cache, KVCache(model.config)])
        )
    else:
        logits = kernels.forward(new, cache)
    for ours, row in zip(logits, left, strict=False):
        assert_same_logits(ours, *only_row(run_reference(model, rows[row])))


BEGINS, PARTS = (1, WINDOW - 6, WINDOW + 13), ((12,), (1,) * 12, (5, 1, 6))
FORKS = [(name, at, sizes) for name in ("reference", "cpu") for at in BEGINS for sizes in PARTS]
FORKS += [("triton", WINDOW + 13, (2,)), ("triton", WINDOW - 6, (1,))]


@pytest.mark.parametrize(("name", "at", "sizes"), FORKS)
def test_a_fork_continues_like_a_single_run(rng, nano_model, small_model, name, at, sizes):
    """Its prefix and its own tokens are two spans. Both are longer than the sliding window."""
    model = small_model if name == "triton" else nano_model
    other = untied_tokens(rng, model, WINDOW + 20)
    ids = untied_tokens(rng, model, at + sum(sizes), other[:, :at])
    kernels, parent = with_kernels(name, model), KVCache(model.config)
    with_kernels("cpu", model).forward(other[:, : WINDOW + 15], parent)
    child = parent.fork(at=at)
    logits = [kernels.forward(part, child) for part in ids[:, at:].split(sizes, dim=1)]
    assert_same_logits(torch.cat(logits, dim=1), *run_reference(model, ids))
    if name != "triton":
        again = kernels.forward(other[:, WINDOW + 15 :], parent)
        assert_same_logits(again, *run_reference(model, other))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [(name, sizes) for name in ("reference", "cpu") for sizes in ((5,), (1,) * 5, (2, 3))]
    + [("triton", (2,))],
)
def test_caches_of_different_lengths_give_the_same_together_and_alone(
    rng, nano_model, small_model, name, sizes
):
    """One long, one with padding, one forked into two rows, and one with few tokens."""
    model = small_model if name == "triton" else nano_model
    kernels, first, count = with_kernels(name, model), with_kernels("cpu", model), sum(sizes)
    lengths = (WINDOW + 30, WINDOW + 9, 2, 25, 25, 3)
    rows = [untied_tokens(rng, model, length + count) for length in lengths]
    rows[4] = untied_tokens(rng, model, 25 + count, rows[3][:, :25])
    prompts = [ids[:, :-count] for ids in rows]
    new = torch.cat([ids[:, -count:] for ids in rows])
    long, few, prefix = (KVCache(model.config) for _ in range(3))
    padded = KVCache(model.config, 2, padding=torch.tensor([0, WINDOW + 7]))
    short = torch.cat((torch.zeros(1, WINDOW + 7, dtype=torch.long), prompts[2]), dim=1)
    for ids, cache in ((prompts[0], long), (torch.cat((prompts[1], short)), padded),
                       (prompts[3], prefix), (prompts[5], few)):  # fmt: skip
        first.forward(ids, cache, last=0)
    past = JoinedCaches([long, padded, prefix.fork(2), few])
    logits = torch.cat([kernels.forward(part, past) for part in new.split(sizes, dim=1)], dim=1)
    for ours, ids in zip(logits, rows, strict=True):
        assert_same_logits(ours, *only_row(run_reference(model, ids)))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_kernels_record_the_points_they_expose(rng, nano_model, name):
    ids, shown = tokens(rng, 1, 140), Recorder(RECORDABLE_IN_KERNELS)
    kernels = with_kernels(name, nano_model)
    assert kernels.explain_refusal(RECORDABLE_IN_KERNELS, ()) is None
    logits = kernels.forward(ids, hooks=shown)
    assert torch.equal(logits, kernels.forward(ids))
    theirs = Recorder(RECORDABLE_IN_KERNELS)
    nano_model(ids, hooks=theirs)
    assert shown.seen.keys() == theirs.seen.keys()
    same = int((run_reference(nano_model, ids)[1].cumsum(-1) == 0).sum())
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

    ids, kernels = tokens(rng, 1, 20), with_kernels("cpu", nano_model)
    assert kernels.explain_refusal((), ["moe.out"]) is None
    ours, theirs = (run(ids, hooks=silence)[0, :5] for run in (kernels.forward, nano_model))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_each_row_may_have_its_own_sinks(rng, nano_model):
    def change(point, layer, x):
        return x + torch.arange(len(x))[:, None] if point == "attn.sink" else x

    ids, kernels = tokens(rng, 3, 20), with_kernels("cpu", nano_model)
    ours, theirs = (run(ids, hooks=change)[:, :5] for run in (kernels.forward, nano_model))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours[1:] - nano_model(ids)[1:, :5]).abs().max() > 1e-3


@pytest.mark.parametrize("late", ["moe.router_logits", "moe.expert_ids"])
def test_a_change_inside_a_kernel_runs_the_reference(nano_model, late):
    engines = Engines(nano_model, backends.load_backend("cpu"), is_auto=True)
    assert engines.choose([late]).engine is engines.kernels
    chosen = engines.choose(writes=[late])
    assert chosen.engine is engines.reference
    assert (chosen.reason or "").startswith(f"{late} cannot be modified: ")
    with pytest.raises(LabError, match=rf"^the cpu kernels cannot .*\({late} cannot be modified: "):
        Engines(nano_model, backends.load_backend("cpu")).choose(writes=[late])


@pytest.mark.parametrize("inside", sorted(FORWARD_POINTS - RECORDABLE_IN_KERNELS))
def test_recording_a_point_inside_a_kernel_runs_the_reference(nano_model, inside):
    engines = Engines(nano_model, backends.load_backend("cpu"), is_auto=True)
    for chosen in (engines.choose([inside]), engines.choose(writes=[inside])):
        assert chosen.engine is engines.reference
        assert (chosen.reason or "").startswith(f"{inside}: ")
    with pytest.raises(LabError, match=rf"^the cpu kernels cannot .*\({inside}: "):
        Engines(nano_model, backends.load_backend("cpu")).choose([inside])


def test_zero_positions_only_fill_the_cache(rng, nano_model):
    ids, cache = tokens(rng, 2, 9), KVCache(GPT_OSS_NANO, 2)
    assert with_kernels("cpu", nano_model).forward(ids, cache, last=0).shape == (
        2,
        0,
        GPT_OSS_NANO.vocab_size,
    )
    assert cache.length == 9


@pytest.mark.parametrize("last", [1, 5, None])
def test_the_last_positions_only(rng, nano_model, last):
    ids = tokens(rng, 2, 9)
    ours = with_kernels("cpu", nano_model).forward(ids, last=last)
    assert ours.shape == (2, 9 if last is None else last, GPT_OSS_NANO.vocab_size)
    theirs, tied = run_reference(nano_model, ids)
    assert_same_logits(ours, theirs, tied)
