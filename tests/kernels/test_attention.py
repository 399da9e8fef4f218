"""Attention against float64: windows, sinks, padding, groups, splits, views, and merged parts."""

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from oss_kernels.attention import reference
from oss_kernels.attention.merge import merge
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.model.attention import Attention, visible_keys
from oss_lab.model.hook import Recorder, in_layer
from oss_lab.model.past import Span
from oss_lab.model.rope import rotation

kernel = pytest.importorskip("oss_kernels.attention.kernel", reason="triton is not installed")
decode, prefill = kernel.decode, kernel.prefill


class Sizes(NamedTuple):
    batch: int
    heads: int
    kv_heads: int
    seq: int
    keys: int
    head_dim: int
    window: int | None = None
    padding: tuple[int, ...] | None = None


# Groups of 1, 4 and 8; head_dim is 16 in nano and 64 in the published models. Up to 64 rows (seq
# times group) use `decode`, more use `prefill`.
ONE = Sizes(1, 2, 2, 1, 1, 16)
LONG = [Sizes(1, 8, 1, 1, 8200, 16), Sizes(1, 8, 1, 1, 700, 64), Sizes(1, 4, 1, 1, 131, 16)]
WINDOWS = [Sizes(1, 4, 1, n, n, 16, 32) for n in (31, 32, 33)]
WINDOWS += [Sizes(1, 1, 1, n, n, 64, 128) for n in (127, 128, 129)]
WINDOWS += [Sizes(1, 8, 1, 1, n, 64, 128) for n in (127, 128, 129, 300)]
FEW = [Sizes(1, 4, 1, 3, 300, 16, 32), Sizes(2, 8, 1, 8, 140, 64), Sizes(1, 2, 2, 5, 5, 16, 1)]
OFFSET = [Sizes(1, 4, 1, 20, 77, 16), Sizes(2, 2, 2, 130, 150, 16, 40)]
PADDED = [
    Sizes(3, 4, 2, 5, 40, 16, None, (0, 7, 40)),
    Sizes(2, 8, 2, 33, 40, 16, 32, (3, 40)),
    Sizes(3, 8, 2, 1, 300, 16, None, (299, 300, 130)),
]
EMPTY = [Sizes(0, 4, 1, 3, 5, 16), Sizes(1, 4, 1, 0, 5, 16), Sizes(1, 4, 1, 0, 0, 16)]


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor
    window: int | None
    padding: Tensor | None


def make_inputs(rng, device, sizes: Sizes, dtype=torch.float32) -> Inputs:
    batch, heads, kv_heads, seq, keys, head_dim, window, padding = sizes
    held = (batch, kv_heads, keys, head_dim)
    shapes = ((batch, heads, seq, head_dim), held, held, (heads,))
    q, k, v, sinks = (torch.randn(*s, generator=rng).to(device, dtype) for s in shapes)
    rows = None if padding is None else torch.tensor(padding, device=device)
    return Inputs(q, k, v, sinks, window, rows)


def run(inputs: Inputs) -> tuple[Tensor, Tensor]:
    q, k, v, sinks, window, padding = inputs
    return kernel.attention(q, k, v, sinks, window=window, padding=padding)


def run_prefill(inputs: Inputs) -> tuple[Tensor, Tensor]:
    q, k, v, sinks, window, padding = inputs
    z = torch.full_like(q.transpose(1, 2).contiguous(), float("nan"))
    lse = torch.full(q.shape[:3], float("nan"), device=q.device)
    prefill.launch(q, k, v, sinks, z, lse, window, padding)()
    return z.transpose(1, 2), lse


def attend_in_float64(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, one query at a time: z, lse, and z computed from the values' magnitudes."""
    q, k, v, sinks = (x.double().cpu() for x in inputs[:4])
    window, padding = inputs.window, inputs.padding
    batch, heads, seq, head_dim = q.shape
    keys = k.shape[2]
    z, spread, lse = torch.zeros_like(q), torch.zeros_like(q), torch.zeros_like(q[..., 0])
    for b, h, i in torch.cartesian_prod(*map(torch.arange, (batch, heads, seq))).tolist():
        slot = keys - seq + i
        first = max(0 if window is None else slot - window + 1, 0)
        first = max(first, 0 if padding is None else int(padding[b]))
        kv_head = h // (heads // k.shape[1])
        seen, values = (x[b, kv_head, first : slot + 1] for x in (k, v))
        powers = (seen @ q[b, h, i] / head_dim**0.5).exp()
        total = powers.sum() + sinks[h].exp()
        lse[b, h, i] = total.log()
        if total > 0:
            z[b, h, i] = powers @ values / total
            spread[b, h, i] = powers @ values.abs() / total
    return z, lse, spread


def check(out: tuple[Tensor, Tensor], inputs: Inputs, rounding: dict[torch.dtype, float]) -> None:
    """Compare with float64. A float32 sum of n products is off by at most n roundings of the sum of
    their magnitudes. So a logit is off by `error`, lse by that plus a sum over the keys, and z by
    twice as much of the mean magnitude of the values. Devices also round the attention weights to
    bfloat16 before they multiply values."""
    z, lse = out[0].double().cpu(), out[1].cpu()
    assert (out[0].dtype, lse.dtype) == (inputs.q.dtype, torch.float32)
    wanted_z, wanted_lse, spread = attend_in_float64(inputs)
    assert (z.shape, lse.shape) == (wanted_z.shape, wanted_lse.shape)
    if not z.numel():
        return
    keys, head_dim = inputs.k.shape[2:]
    lengths = [x.double().norm(dim=-1).amax().item() if x.numel() else 0 for x in inputs[:2]]
    reach = lengths[0] * lengths[1] / head_dim**0.5 + inputs.sinks.double().abs().amax().item()
    error = (head_dim + 8) * 2**-24 * reach + (keys + 8) * 2**-24
    shares = 2**-9 if z.is_cuda and inputs.q.dtype == torch.bfloat16 else 0.0
    assert ((lse - wanted_lse).abs() <= error).all()
    bound = rounding[inputs.q.dtype] * wanted_z.abs() + (2 * error + shares) * spread
    assert ((z - wanted_z).abs() <= bound).all()


EVERY = [ONE, *LONG, *WINDOWS, *FEW, *OFFSET, *PADDED, *EMPTY]


@pytest.mark.parametrize("sizes", EVERY, ids=str)
def test_the_kernels_compute_the_definition(rng, device, rounding, sizes):
    dtype = torch.bfloat16 if sizes.keys % 2 else torch.float32
    inputs = make_inputs(rng, device, sizes, dtype)
    check(run(inputs), inputs, rounding)


@pytest.mark.parametrize("sizes", [ONE, WINDOWS[-1], *FEW, PADDED[0], PADDED[2]], ids=str)
def test_prefill_also_handles_few_queries(rng, device, rounding, sizes):
    inputs = make_inputs(rng, device, sizes)
    check(run_prefill(inputs), inputs, rounding)


def test_both_kernels_and_several_splits_were_tested(rng, device):
    def names(sizes):
        inputs = make_inputs(rng, device, sizes)
        z = torch.empty_like(inputs.q.transpose(1, 2).contiguous())
        lse = torch.empty(inputs.q.shape[:3], device=device)
        planned = kernel.make_launches(*inputs[:4], z, lse, *inputs[4:])
        return [(launch.kernel.__name__, launch.grid) for launch in planned]

    assert names(LONG[0]) == [("split_kernel", (1, 33)), ("merge_kernel", (8,))]
    assert names(WINDOWS[-1]) == [("split_kernel", (1, 1))]
    assert names(WINDOWS[0]) == [("prefill_kernel", (4, 1))]
    assert names(OFFSET[1]) == [("prefill_kernel", (4, 2))]


@pytest.mark.parametrize("sizes", [WINDOWS[2], WINDOWS[-1], LONG[1]], ids=str)
def test_the_tolerance_would_catch_typical_faults(rng, device, rounding, sizes):
    inputs = make_inputs(rng, device, sizes)
    out = run(inputs)
    scale = sizes.head_dim**-0.5
    faults = [
        inputs._replace(sinks=inputs.sinks * scale),
        inputs._replace(sinks=inputs.sinks - 20),
        inputs._replace(sinks=inputs.sinks.roll(1)),
        inputs._replace(q=inputs.q * (1 + 2**-8)),
    ]
    if sizes.window:
        faults += [inputs._replace(window=sizes.window + by) for by in (-1, 1)]
    else:
        faults += [inputs._replace(padding=torch.ones(sizes.batch, dtype=torch.int32))]
    for fault in faults:
        with pytest.raises(AssertionError):
            check(out, fault, rounding)


@pytest.mark.parametrize("sizes", [WINDOWS[2], FEW[0], LONG[2]], ids=str)
def test_large_logits_do_not_overflow(rng, device, rounding, sizes):
    inputs = make_inputs(rng, device, sizes)
    great = inputs._replace(q=inputs.q * 60)
    check(run(great), great, rounding)
    assert attend_in_float64(great)[1].amax() > 88, "no exponential here is beyond float32"


@pytest.mark.parametrize("call", [run, run_prefill])
def test_a_query_that_sees_no_key_gives_all_its_attention_to_the_sink(rng, device, call):
    inputs = make_inputs(rng, device, Sizes(2, 4, 1, 3, 300, 16, None, (300, 298)))
    z, lse = call(inputs)
    assert (z[0] == 0).all()
    assert (z[1, :, 0] == 0).all()
    assert (z[1, :, 1:] != 0).any()
    torch.testing.assert_close(lse[0], inputs.sinks[:, None].expand(4, 3), rtol=3e-7, atol=0)
    z, lse = call(inputs._replace(sinks=torch.full_like(inputs.sinks, -torch.inf)))
    assert (z[0] == 0).all()
    assert lse[0].isneginf().all()
    assert lse[1, :, 1:].isfinite().all()


@pytest.mark.parametrize("sizes", [PADDED[1], PADDED[2], OFFSET[0]], ids=str)
def test_views_give_the_same_bits_and_empty_slots_are_not_read(rng, device, sizes):
    inputs = make_inputs(rng, device, sizes)
    z, lse = run(inputs)
    buffer = torch.full((2, sizes.batch, sizes.kv_heads, sizes.keys + 9, sizes.head_dim), torch.nan)
    buffer = buffer.to(device)
    buffer[:, :, :, 4:-5] = torch.stack((inputs.k, inputs.v))
    if inputs.padding is not None:
        for row, padded in enumerate(inputs.padding.tolist()):
            buffer[:, row, :, : 4 + padded] = torch.nan
    k, v = buffer[:, :, :, 4:-5].unbind()
    q = inputs.q.transpose(1, 2).contiguous().transpose(1, 2)
    again = run(inputs._replace(q=q, k=k, v=v))
    assert torch.equal(again[0], z)
    assert torch.equal(again[1], lse)


def test_a_batch_may_share_one_row_of_keys(rng, device, rounding):
    inputs = make_inputs(rng, device, Sizes(3, 4, 2, 2, 50, 16))
    k, v = (x[:1].expand(3, -1, -1, -1) for x in (inputs.k, inputs.v))
    inputs = inputs._replace(k=k, v=v)
    check(run(inputs), inputs, rounding)


@pytest.mark.parametrize("sizes", [FEW[0], LONG[1], OFFSET[1]], ids=str)
def test_every_element_of_poisoned_outputs_is_written_and_none_beyond(rng, device, sizes):
    q, k, v, sinks, window, padding = make_inputs(rng, device, sizes)
    batch, heads, seq, head_dim = q.shape
    z = torch.full((batch + 1, seq, heads, head_dim), torch.nan, device=device)
    lse = torch.full((batch + 1, heads, seq), torch.nan, device=device)
    for launch in kernel.make_launches(q, k, v, sinks, z[:batch], lse[:batch], window, padding):
        for name, tensor in launch.arguments.items():
            if name in ("z_parts", "lse_parts"):
                assert isinstance(tensor, Tensor)
                assert tensor.isfinite().all()
            if name in ("z", "lse"):
                assert isinstance(tensor, Tensor)
                tensor.fill_(torch.nan)
        launch()
    assert z[:batch].isfinite().all()
    assert lse[:batch].isfinite().all()
    assert z[batch].isnan().all()
    assert lse[batch].isnan().all()


@pytest.mark.parametrize("sizes", [Sizes(3, 4, 1, 1, 300, 16), Sizes(2, 4, 2, 34, 40, 16, 32)])
def test_a_rows_bits_do_not_depend_on_the_other_rows(rng, device, sizes):
    inputs = make_inputs(rng, device, sizes, torch.bfloat16)
    z, lse = run(inputs)
    alone = run(inputs._replace(q=inputs.q[1:2], k=inputs.k[1:2], v=inputs.v[1:2]))
    assert torch.equal(z[1:2], alone[0])
    assert torch.equal(lse[1:2], alone[1])


@pytest.mark.parametrize("cut", [1, 130, 299])
def test_two_halves_merge_into_the_full_result(rng, device, rounding, cut):
    inputs = make_inputs(rng, device, Sizes(1, 8, 2, 1, 300, 16))
    none = torch.full_like(inputs.sinks, -torch.inf)
    before = inputs._replace(k=inputs.k[:, :, :cut], v=inputs.v[:, :, :cut], sinks=none)
    after = inputs._replace(k=inputs.k[:, :, cut:], v=inputs.v[:, :, cut:])
    check(merge([run(before), run(after)]), inputs, rounding)


def test_all_queries_see_a_prefix_that_ends_before_the_first(rng, device, rounding):
    inputs = make_inputs(rng, device, Sizes(2, 4, 2, 3, 40, 16))
    none = torch.full_like(inputs.sinks, -torch.inf)
    k, v = inputs.k[:, :, :35], inputs.v[:, :, :35]
    prefix = kernel.attention(inputs.q, k, v, none, later=5)
    own = inputs._replace(k=inputs.k[:, :, 35:], v=inputs.v[:, :, 35:])
    check(merge([prefix, run(own)]), inputs, rounding)


@pytest.mark.parametrize("sizes", [Sizes(1, 4, 1, 40, 40, 16), Sizes(1, 2, 1, 140, 140, 16, 32)])
def test_samples_in_one_row_equal_each_alone(rng, device, rounding, sizes):
    """By the kernel and by the reference. The last query is padding: it sees no key."""
    inputs = make_inputs(rng, device, sizes)
    cuts, seq = (0, sizes.seq // 3, sizes.seq // 3 + 1, sizes.seq - 1, sizes.seq), sizes.seq
    lengths = torch.tensor(cuts).diff()
    starts = torch.tensor(cuts[:-1]).repeat_interleave(lengths)
    starts[-1] = seq
    given, options = inputs[:4], {"window": inputs.window, "starts": starts[None]}
    z, lse = kernel.attention(*given, window=inputs.window, starts=starts[None].to(device))
    exact = reference.attention(*(x.double().cpu() for x in given), **options)
    for begin, end in pairwise(cuts[:-1]):
        some = slice(begin, end)
        q, k, v = (x[:, :, some] for x in inputs[:3])
        own = inputs._replace(q=q, k=k, v=v)
        check((z[:, :, some], lse[:, :, some]), own, rounding)
        wanted_z, wanted_lse, _ = attend_in_float64(own)
        torch.testing.assert_close(exact[0][:, :, some], wanted_z, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(exact[1][:, :, some], wanted_lse, rtol=1e-12, atol=1e-13)
    assert not z[:, :, -1].any()
    torch.testing.assert_close(lse[0, :, -1], inputs.sinks, rtol=3e-7, atol=0)


@pytest.mark.parametrize("sizes", EVERY, ids=str)
def test_the_reference_is_the_definition(rng, sizes):
    inputs = make_inputs(rng, "cpu", sizes, torch.float64)
    z, lse = reference.attention(*inputs[:4], window=inputs.window, padding=inputs.padding)
    wanted_z, wanted_lse, _ = attend_in_float64(inputs)
    torch.testing.assert_close(z, wanted_z, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_is_the_models_attention(rng, window, dtype):
    config = ModelConfig(hidden_size=96, head_dim=16, num_attention_heads=8, num_key_value_heads=2)
    model = Attention(config).to(dtype)
    model.sinks.data = torch.randn(8, generator=rng).to(dtype)
    x = torch.randn(2, 40, 96, generator=rng).to(dtype)
    padding = torch.tensor([0, 40])
    recorder = Recorder(("attn.q_rot", "attn.k_rot", "attn.v", "attn.z", "attn.scores"))
    positions = torch.arange(40) - padding[:, None]
    cos, sin = rotation(config, positions, dtype)
    visible = visible_keys(positions, positions, window)[:, None]
    model(x, cos, sin, visible, lambda k, v: (Span(0, 2, k, v),), in_layer(recorder, 0))
    q, k, v, z, scores = (
        recorder.seen[f"attn.{name}", 0][0] for name in ("q_rot", "k_rot", "v", "z", "scores")
    )
    ours, lse = reference.attention(q, k, v, model.sinks.data, window=window, padding=padding)
    assert torch.equal(ours, z)
    sink = model.sinks.data.float().view(1, 8, 1, 1).expand(2, 8, 40, 1)
    assert torch.equal(lse, torch.cat((scores, sink), -1).logsumexp(-1))


def test_sizes_that_no_kernel_supports_are_refused(rng, device):
    for sizes in (Sizes(1, 3, 2, 1, 4, 16), Sizes(1, 2, 1, 1, 4, 24)):
        with pytest.raises(ValueError, match="must divide heads"):
            run(make_inputs(rng, device, sizes))
