"""Attention over spans of keys, one call per span, then merged: the same as one call over all
keys.
"""

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
QUERIES = (1, 2, 7, 129)  # with 127 or 128 keys, the first of 129 queries come before every key


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor
    padding: Tensor | None = None


@pytest.fixture(params=["reference", "cpu", "triton"])
def attention(request, device) -> Callable[..., tuple[Tensor, Tensor]]:
    """The attention of one backend. Moves the inputs to its device and the results back."""
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


def make_inputs(
    rng, seq: int, keys: int, batch: int = 1, heads: int = 2, kv_heads: int = 1
) -> Inputs:
    held = (batch, kv_heads, keys, 16)
    shapes = ((batch, heads, seq, 16), held, held, (heads,))
    return Inputs(*(torch.randn(*shape, generator=rng) for shape in shapes))


def random_spans(rng, keys: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` spans of random sizes; some may be empty."""
    cuts = torch.randint(0, keys + 1, (count - 1,), generator=rng).sort().values.tolist()
    return zip([0, *cuts], [*cuts, keys], strict=True)


def attend_by_spans(attention, rng, inputs: Inputs, window: int | None, count: int):
    """The merged result. The sink is part of one random span."""
    keys = inputs.k.shape[2]
    with_sink = int(torch.randint(0, count, (), generator=rng))
    parts = []
    for number, (begin, end) in enumerate(random_spans(rng, keys, count)):
        sinks = inputs.sinks if number == with_sink else torch.full_like(inputs.sinks, -torch.inf)
        padding = inputs.padding
        if padding is not None:
            padding = (padding - begin).clamp(0, end - begin)
        own = inputs.q, inputs.k[:, :, begin:end], inputs.v[:, :, begin:end], sinks
        parts.append(attention(*own, window=window, padding=padding, later=keys - end))
    return merge(parts)


def check(out: tuple[Tensor, Tensor], inputs: Inputs, window: int | None) -> None:
    q, k, v, sinks = (x.double() for x in inputs[:4])
    wanted = reference.attention(q, k, v, sinks, window=window, padding=inputs.padding)
    assert out[0].dtype == inputs.q.dtype
    for ours, theirs in zip(out, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("seq", QUERIES)
def test_spans_merge_into_the_full_result(rng, attention, seq, keys):
    for window, count in zip(WINDOWS, (2, 3, 4), strict=True):
        inputs = make_inputs(rng, seq, keys)
        check(attend_by_spans(attention, rng, inputs, window, count), inputs, window)


@pytest.mark.parametrize("seq", QUERIES)
def test_one_span_gives_the_same_bits(rng, attention, seq):
    for window in WINDOWS:
        inputs = make_inputs(rng, seq, 129)
        whole = attention(*inputs[:4], window=window, padding=None)
        part = attention(*inputs[:4], window=window, padding=None, later=0)
        for ours, merged, plain in zip(part, merge([part]), whole, strict=True):
            assert torch.equal(ours, plain)
            assert torch.equal(merged, plain)


@pytest.mark.parametrize("window", WINDOWS)
def test_padding_may_end_in_any_span(rng, attention, window):
    for seq, padding in ((7, (0, 40, 127)), (33, (129, 128, 60))):
        inputs = make_inputs(rng, seq, 129, batch=3)._replace(padding=torch.tensor(padding))
        check(attend_by_spans(attention, rng, inputs, window, 3), inputs, window)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("padded", [False, True])
def test_rows_may_share_a_prefix_that_is_stored_once(rng, attention, window, padded):
    for seq in (1, 2, 40):
        prefix = make_inputs(rng, seq, 129, 1, 4, 2)
        own = make_inputs(rng, seq, 3, 3, 4, 2)
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
def test_a_query_that_sees_no_key_of_a_span_gives_all_its_attention_to_the_sink(
    rng, attention, keys, seq
):
    inputs = make_inputs(rng, seq, keys, 2)._replace(padding=torch.tensor([0, keys]))
    z, lse = attention(*inputs[:4], window=5, padding=inputs.padding, later=seq + 4)
    assert not z.any()
    torch.testing.assert_close(lse, inputs.sinks[:, None].expand(2, 2, seq), rtol=3e-7, atol=0)
    none = torch.full_like(inputs.sinks, -torch.inf)
    part = attention(*inputs[:3], none, window=5, padding=inputs.padding, later=seq + 4)
    assert part[1].isneginf().all()
    for z, lse in (part, merge([part, part])):
        assert not z.any()
        assert lse.isneginf().all()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-13), (torch.bfloat16, 2e-2)])
def test_the_result_keeps_the_type_of_the_inputs(rng, dtype, atol):
    inputs = Inputs(*(x.to(dtype) for x in make_inputs(rng, 7, 129)[:4]))
    z, lse = attend_by_spans(cpu.attention, rng, inputs, None, 3)
    assert (z.dtype, lse.dtype) == (dtype, torch.promote_types(dtype, torch.float32))
    wide = [x.double() for x in inputs[:4]]
    wanted = reference.attention(*wide)
    torch.testing.assert_close(z.double(), wanted[0], atol=atol, rtol=0)
    torch.testing.assert_close(lse.double(), wanted[1], atol=atol, rtol=0)
