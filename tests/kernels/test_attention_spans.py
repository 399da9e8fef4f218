"""Attention over spans of keys, one call a span, merged: the result of one call over all keys."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from oss_kernels.attention import cpu, reference
from oss_kernels.attention.merge import merge
from torch import Tensor

WINDOWS = (None, 128, 5)
KEYS = (127, 128, 129, 300)
QUERIES = (1, 2, 7, 129)  # with keys of 127 and 128, the first of 129 sit before every key


class Given(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor
    padding: Tensor | None = None


@pytest.fixture(params=["reference", "cpu", "triton"])
def attention(request, device) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operation of one backend, on its device and back."""
    if request.param == "triton":
        reason = "triton is not installed"
        module: ModuleType = pytest.importorskip("oss_kernels.attention.kernel", reason=reason)
    else:
        module = {"reference": reference, "cpu": cpu}[request.param]
    where = device if request.param == "triton" else "cpu"

    def call(q, k, v, sinks, *, window, padding, **later):
        q, k, v, sinks = (x.to(where) for x in (q, k, v, sinks))
        padding = None if padding is None else padding.to(where)
        z, lse = module.attention(q, k, v, sinks, window=window, padding=padding, **later)
        return z.cpu(), lse.cpu()

    return call


def made(rng, seq: int, keys: int, batch: int = 1, heads: int = 2, kv_heads: int = 1) -> Given:
    held = (batch, kv_heads, keys, 16)
    shapes = ((batch, heads, seq, 16), held, held, (heads,))
    return Given(*(torch.randn(*shape, generator=rng) for shape in shapes))


def spans(rng, keys: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` spans of random sizes, some of them perhaps empty."""
    cuts = torch.randint(0, keys + 1, (count - 1,), generator=rng).sort().values.tolist()
    return zip([0, *cuts], [*cuts, keys], strict=True)


def by_spans(attention, rng, given: Given, window: int | None, count: int):
    """The merged result; the sink takes part in a random one of the spans."""
    keys = given.k.shape[2]
    with_sink = int(torch.randint(0, count, (), generator=rng))
    parts = []
    for number, (begin, end) in enumerate(spans(rng, keys, count)):
        sinks = given.sinks if number == with_sink else torch.full_like(given.sinks, -torch.inf)
        padding = given.padding
        if padding is not None:
            padding = (padding - begin).clamp(0, end - begin)
        own = given.q, given.k[:, :, begin:end], given.v[:, :, begin:end], sinks
        parts.append(attention(*own, window=window, padding=padding, later=keys - end))
    return merge(parts)


def check(out: tuple[Tensor, Tensor], given: Given, window: int | None) -> None:
    q, k, v, sinks = (x.double() for x in given[:4])
    wanted = reference.attention(q, k, v, sinks, window=window, padding=given.padding)
    assert out[0].dtype == given.q.dtype
    for ours, theirs in zip(out, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("seq", QUERIES)
def test_spans_merge_to_the_whole(rng, attention, seq, keys):
    for window, count in zip(WINDOWS, (2, 3, 4), strict=True):
        given = made(rng, seq, keys)
        check(by_spans(attention, rng, given, window, count), given, window)


@pytest.mark.parametrize("seq", QUERIES)
def test_one_span_is_the_whole_with_the_same_bits(rng, attention, seq):
    for window in WINDOWS:
        given = made(rng, seq, 129)
        whole = attention(*given[:4], window=window, padding=None)
        part = attention(*given[:4], window=window, padding=None, later=0)
        for ours, merged, plain in zip(part, merge([part]), whole, strict=True):
            assert torch.equal(ours, plain)
            assert torch.equal(merged, plain)


@pytest.mark.parametrize("window", WINDOWS)
def test_padding_may_end_in_any_span(rng, attention, window):
    for seq, padding in ((7, (0, 40, 127)), (33, (129, 128, 60))):
        given = made(rng, seq, 129, batch=3)._replace(padding=torch.tensor(padding))
        check(by_spans(attention, rng, given, window, 3), given, window)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("padded", [False, True])
def test_rows_may_share_a_prefix_that_is_held_once(rng, attention, window, padded):
    for seq in (1, 2, 40):
        prefix = made(rng, seq, 129, 1, 4, 2)
        own = made(rng, seq, 3, 3, 4, 2)
        whole = own._replace(
            k=torch.cat((prefix.k.expand(3, -1, -1, -1), own.k), dim=2),
            v=torch.cat((prefix.v.expand(3, -1, -1, -1), own.v), dim=2),
            padding=torch.tensor([0, 129, 77]) if padded else None,
        )
        none = torch.full_like(own.sinks, -torch.inf)
        parts = [
            attention(
                *(own.q, prefix.k, prefix.v, own.sinks),
                **{"window": window, "padding": whole.padding, "later": 3},
            ),
            attention(own.q, own.k, own.v, none, window=window, padding=None, later=0),
        ]
        check(merge(parts), whole, window)


@pytest.mark.parametrize("keys", [0, 20])
@pytest.mark.parametrize("seq", [2, 129])
def test_a_query_that_sees_no_key_of_a_span_leaves_its_mass_to_the_sink(rng, attention, keys, seq):
    given = made(rng, seq, keys, 2)._replace(padding=torch.tensor([0, keys]))
    z, lse = attention(*given[:4], window=5, padding=given.padding, later=seq + 4)
    assert not z.any()
    torch.testing.assert_close(lse, given.sinks[:, None].expand(2, 2, seq), rtol=3e-7, atol=0)
    none = torch.full_like(given.sinks, -torch.inf)
    part = attention(*given[:3], none, window=5, padding=given.padding, later=seq + 4)
    assert part[1].isneginf().all()
    for z, lse in (part, merge([part, part])):
        assert not z.any()
        assert lse.isneginf().all()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-13), (torch.bfloat16, 2e-2)])
def test_other_types_keep_theirs(rng, dtype, atol):
    given = Given(*(x.to(dtype) for x in made(rng, 7, 129)[:4]))
    z, lse = by_spans(cpu.attention, rng, given, None, 3)
    assert (z.dtype, lse.dtype) == (dtype, torch.promote_types(dtype, torch.float32))
    wide = [x.double() for x in given[:4]]
    wanted = reference.attention(*wide)
    torch.testing.assert_close(z.double(), wanted[0], atol=atol, rtol=0)
    torch.testing.assert_close(lse.double(), wanted[1], atol=atol, rtol=0)
