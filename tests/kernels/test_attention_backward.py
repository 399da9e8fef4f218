"""Gradients of attention against float64 autograd of the definition: windows, samples, sinks."""

from importlib import import_module
from typing import NamedTuple

import pytest
import torch
from oss_kernels.attention_backward.visible import find_first_keys, find_last_queries
from torch import Tensor


class Sizes(NamedTuple):
    seq: int
    window: int | None = None
    has_samples: bool = False
    batch: int = 1
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16


EVERY = [
    Sizes(seq, window, has_samples)
    for seq in (1, 31, 33, 127, 128, 129, 300)
    for window in (None, 32, 128)
    for has_samples in (False, True)
]
# The interpreter needs up to half a second for each.
SOME = [
    Sizes(1),
    Sizes(31, 32),
    Sizes(33, None, True, batch=2),
    Sizes(127, 128, heads=1, kv_heads=1),
    Sizes(128, 128, True, heads=2, kv_heads=1),
    Sizes(129, 128, heads=2, kv_heads=2, head_dim=64),
    Sizes(129, heads=2, kv_heads=1),
    Sizes(300, 32, True, heads=2, kv_heads=1),
]
CASES = [(name, sizes) for name in ("reference", "cpu") for sizes in EVERY + SOME]
CASES += [("kernel", sizes) for sizes in SOME]


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor
    dz: Tensor
    window: int | None
    starts: Tensor | None


def make_inputs(rng, sizes: Sizes, dtype=torch.float32) -> Inputs:
    batch, heads, seq, head_dim = sizes.batch, sizes.heads, sizes.seq, sizes.head_dim
    held, wide = (batch, sizes.kv_heads, seq, head_dim), (batch, heads, seq, head_dim)
    q, k, v, dz, sinks = (
        torch.randn(*shape, generator=rng).to(dtype) for shape in (wide, held, held, wide, (heads,))
    )
    return Inputs(q, k, v, sinks, dz, sizes.window, cut(sizes) if sizes.has_samples else None)


def cut(sizes: Sizes) -> Tensor:
    """Starts of samples, other ones in each row. The last position is padding: it sees nothing."""
    starts = torch.zeros(sizes.batch, sizes.seq, dtype=torch.int32)
    for row, own in enumerate(starts):
        for place in (sizes.seq // 3 + row, sizes.seq // 2 + row):
            own[place:] = place
    starts[-1, -1] = sizes.seq
    return starts


def attend(q, k, v, sinks, window, starts) -> tuple[Tensor, Tensor]:
    """The definition: z and lse. Differentiable."""
    (_, heads, seq, head_dim), slot = q.shape, torch.arange(q.shape[2])
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    visible = (slot <= slot[:, None]) & (slot > slot[:, None] - (window or seq))
    if starts is not None:
        visible = visible & (slot >= starts[:, None, :, None])
    scores = (q @ k.mT / head_dim**0.5).masked_fill(~visible, -torch.inf)
    lse = torch.cat((scores, sinks.view(1, -1, 1, 1).expand_as(scores[..., :1])), -1).logsumexp(-1)
    return (scores - lse[..., None]).exp() @ v, lse


def differentiate(inputs: Inputs) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """The gradients of q, k, v and sinks by torch, then z and lse; in float64."""
    leaves = [x.double().requires_grad_() for x in inputs[:4]]
    z, lse = attend(*leaves, window=inputs.window, starts=inputs.starts)
    return torch.autograd.grad(z, leaves, inputs.dz.double()), z.detach(), lse.detach()


def compute(name: str, inputs: Inputs, device: str) -> tuple[Tensor, ...]:
    """The gradients by the module `name`, from z and lse as a forward pass would round them."""
    if name == "kernel":
        pytest.importorskip("triton", reason="triton is not installed")
    module = import_module(f"oss_kernels.attention_backward.{name}")
    _, z, lse = differentiate(inputs)
    given = (*inputs[:4], z.to(inputs.q.dtype), lse.to(torch.float32), inputs.dz)
    place = device if name == "kernel" else "cpu"
    starts = None if inputs.starts is None else inputs.starts.to(place)
    moved = (each.to(place) for each in given)
    found = module.attention_backward(*moved, window=inputs.window, starts=starts)
    return tuple(each.cpu() for each in found)


def check(found: tuple[Tensor, ...], inputs: Inputs, error: float) -> None:
    """Every element is within `error` of the largest of its tensor."""
    for own, wanted, given in zip(found, differentiate(inputs)[0], inputs[:4], strict=True):
        assert (own.dtype, own.shape) == (given.dtype, given.shape)
        assert (own.double() - wanted).abs().max() <= error * wanted.abs().max() + 1e-12


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=str)
def test_gradients_are_those_of_the_definition(rng, device, name, sizes):
    inputs = make_inputs(rng, sizes)
    check(compute(name, inputs, device), inputs, 3e-6)


@pytest.mark.parametrize(
    "sizes", [Sizes(33), Sizes(129, 32, True, batch=2), Sizes(129, None, True)]
)
def test_blocks_of_queries_and_keys_on_a_cpu(rng, device, monkeypatch, sizes):
    module = import_module("oss_kernels.attention_backward.cpu")
    monkeypatch.setattr(module, "QUERIES", 8)
    monkeypatch.setattr(module, "KEYS", 12)
    inputs = make_inputs(rng, sizes)
    check(compute("cpu", inputs, device), inputs, 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 128])
def test_more_than_4096_tokens_on_a_cpu(rng, device, window):
    inputs = make_inputs(rng, Sizes(4130, window, heads=2, kv_heads=1))
    inputs = inputs._replace(starts=torch.tensor([[0] * 3 + [3] * 4098 + [4101] * 29]))
    check(compute("cpu", inputs, device), inputs, 3e-6)


@pytest.mark.parametrize("name", ["reference", "cpu", "kernel"])
def test_bfloat16_gradients_are_rounded_but_summed_in_float32(rng, device, name):
    """z is rounded to bfloat16 before D is computed from it, and the result is rounded once."""
    inputs = make_inputs(rng, Sizes(129, 32, True), torch.bfloat16)
    check(compute(name, inputs, device), inputs, 2e-2)


@pytest.mark.parametrize("name", ["reference", "cpu", "kernel"])
def test_the_tolerance_would_catch_typical_faults(rng, device, name):
    inputs = make_inputs(rng, Sizes(33, 8, True))
    assert inputs.starts is not None
    faults = [
        inputs._replace(sinks=inputs.sinks - 20),
        inputs._replace(sinks=inputs.sinks.roll(1)),
        inputs._replace(window=7),
        inputs._replace(window=9),
        inputs._replace(starts=None),
        inputs._replace(starts=(inputs.starts - 1).clamp(min=0)),
        inputs._replace(dz=inputs.dz.roll(1, dims=2)),
    ]
    found = compute(name, inputs, device)
    for fault in faults:
        with pytest.raises(AssertionError):
            check(found, fault, 3e-6)


@pytest.mark.parametrize("name", ["reference", "cpu", "kernel"])
def test_without_a_sink_a_query_that_sees_nothing_has_no_gradient(rng, device, name):
    inputs = make_inputs(rng, Sizes(33, None, True))
    inputs = inputs._replace(sinks=torch.full_like(inputs.sinks, -torch.inf))
    _, z, lse = differentiate(inputs)
    assert lse[..., -1].isneginf().all()
    module = pytest.importorskip(f"oss_kernels.attention_backward.{name}")
    given = (*inputs[:4], z.nan_to_num(), lse, inputs.dz)
    place = device if name == "kernel" else "cpu"
    moved = [each.float().to(place) for each in given]
    assert inputs.starts is not None
    dq, *others = module.attention_backward(*moved, starts=inputs.starts.to(place))
    assert not dq[:, :, -1].any()
    assert dq[:, :, 1:5].any()
    assert all(each.isfinite().all() for each in (dq, *others))
    assert not others[-1].any()


@pytest.mark.parametrize("name", ["cpu", "kernel"])
def test_the_same_bits_in_every_run_and_for_views(rng, device, name):
    inputs = make_inputs(rng, Sizes(129, None, True, heads=2, kv_heads=1))
    found = compute(name, inputs, device)
    q, k, v, dz = (
        x.transpose(1, 2).contiguous().transpose(1, 2)
        for x in (inputs.q, inputs.k, inputs.v, inputs.dz)
    )
    again = compute(name, inputs._replace(q=q, k=k, v=v, dz=dz), device)
    assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))


def test_the_kernels_write_every_element_and_none_beyond(rng, device):
    kernel = pytest.importorskip("oss_kernels.attention_backward.kernel")
    inputs = make_inputs(rng, Sizes(33, 16, True))
    _, z, lse = differentiate(inputs)
    first = find_first_keys(1, 33, 16, inputs.starts, torch.device("cpu"))
    given = [
        each.to(device)
        for each in (*inputs[:3], inputs.dz, lse.float(), (inputs.dz * z).sum(-1).float(), first)
    ]
    results = [torch.full((2, *each.shape[1:]), torch.nan, device=device) for each in inputs[:3]]
    last = find_last_queries(first).to(device)
    for launch in kernel.make_launches(*given, last, *(each[:1] for each in results)):
        launch()
    for each in results:
        assert each[0].isfinite().all()
        assert each[1].isnan().all()


@pytest.mark.parametrize("window", [None, 1, 7, 40])
def test_first_keys_and_last_queries_are_those_of_the_visible_pairs(rng, window):
    starts = torch.randint(0, 40, (3, 40), generator=rng)  # in no order
    starts[0] = starts[0].sort().values
    first = find_first_keys(3, 40, window, starts, torch.device("cpu"))
    slot = torch.arange(40)
    visible = (slot >= first[..., None]) & (slot <= slot[:, None])
    wanted = (slot >= starts[..., None]) & (slot <= slot[:, None])
    wanted &= slot > slot[:, None] - (window or 40)
    assert torch.equal(visible, wanted)
    last = find_last_queries(first)
    for row, key in torch.cartesian_prod(torch.arange(3), slot).tolist():
        seen_by = visible[row, :, key].nonzero()
        if len(seen_by):
            assert last[row, key] >= seen_by.max()
    ascending = visible[0].flip(0).int().argmax(0)  # how far from the end the last query is
    assert torch.equal(last[0][visible[0].any(0)], (39 - ascending)[visible[0].any(0)].int())
