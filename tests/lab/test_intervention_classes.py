"""Each intervention on random tensors: values, padded batches, hooks, gradients."""

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from oss_lab.errors import LabError
from oss_lab.hooks.interventions import (
    AblateExpert,
    AblateHead,
    AblateSlot,
    AddVector,
    At,
    BanExpert,
    BiasExpert,
    ForceExpert,
    HideKeys,
    Hook,
    NarrowWindow,
    Patch,
    RemoveSink,
    ScaleExpert,
    ScaleHead,
    ScaleSlot,
    SetSink,
    ShiftSink,
    UseNextBest,
    hide_channel,
)
from oss_lab.hooks.interventions.attention import REMOVED
from oss_lab.hooks.interventions.experts import find_next_best
from oss_lab.hooks.points import POINTS

SIZES = {"head": 4, "kv_head": 2, "head_dim": 3, "key": 7, "hidden": 5, "expert": 6, "slot": 2}
POSITIONS = torch.tensor([[2, 3, 4, 5, 6], [-2, -1, 0, 1, 2], [10, 11, 12, 13, 14]])
PADDING = (0, 2, 0)  # on the left of each row
CHANNELS = (
    ("analysis", "analysis", "final", "final", None),
    (None, None, None, "analysis", "final"),
    ("analysis",) * 5,
)
VECTOR = torch.arange(5.0)


def random(point, rows=3, seq=5, seed=0):
    """Random values for a point in the shape and dtype of the forward pass: float32, or expert
    numbers."""
    generator = torch.Generator().manual_seed(seed)
    if point == "moe.expert_ids":
        return random("moe.router_logits", rows, seq, seed).topk(2).indices
    axes = POINTS[point].axes
    x = torch.randn(rows, *(seq if axis == "seq" else SIZES[axis] for axis in axes))
    x = torch.randn(x.shape, generator=generator)
    return x.transpose(1, 2).contiguous() if POINTS[point].has_head_axis else x


def place(point, rows=(0, 1, 2), begin=0, layer: int | None = 3, **changes):
    """The place of some rows of the batch, without their first `begin` tokens."""
    chosen = list(rows)
    earlier = {name: random(name)[chosen, begin:] for name in ("moe.expert_ids",)}
    earlier["moe.router_logits"] = random("moe.router_logits")[chosen, begin:]
    at = At(
        layer=layer if POINTS[point].is_per_layer else None,
        point=point,
        positions=POSITIONS[chosen, begin:],
        token_ids=POSITIONS[chosen, begin:] + 100,
        channels=tuple(CHANNELS[row][begin:] for row in rows),
        rows=tuple(rows),
        is_prefill=True,
        earlier_values=earlier,
    )
    return replace(at, **changes)


def apply_change(intervention, rows=(0, 1, 2)):
    """x before and after the intervention, for these rows. x itself is not modified."""
    x = random(intervention.writes)[list(rows)]
    before = x.clone()
    after = intervention.change(x, place(intervention.writes, rows))
    assert torch.equal(x, before)
    assert after.dtype == x.dtype
    return x, after


def double(x, here):
    return x * 2


def resize(x, here):
    x.resize_(1)


EVERY = [
    AblateHead(layer=3, head=[0, 2]),
    ScaleHead(layer="all", head=1, by=-0.3, positions=[2, 4, 12]),
    RemoveSink(layer=3, head="all"),
    SetSink(layer=3, head=0, to=-math.inf),
    ShiftSink(layer=3, head=[1, 3], by=0.7),
    HideKeys(layer=3, keys=(0, 1, 3, 9), first_query=2),
    NarrowWindow(layer=3, keys=2),
    AblateExpert(layer=3, expert=range(3)),
    ScaleExpert(layer=3, expert="all", by=0.1, positions=(1, 2, 13)),
    AblateSlot(layer=3, slot=1),
    ScaleSlot(layer=3, slot=0, by=1.7, positions=5),
    BanExpert(layer=3, expert=[0, 5]),
    BiasExpert(layer=3, expert=2, by=0.3, positions=range(3)),
    ForceExpert(layer=3, expert=4, slot=1),
    UseNextBest(layer=3, slot=0),
    AddVector(point="resid.pre", layer=3, vector=VECTOR, by=0.3),
    AddVector(point="embed", vector=VECTOR, positions=[2, 13]),
    Patch(point="attn.z", layer=3, positions=[14, 1, 2], values=torch.arange(36.0).view(3, 4, 3)),
    Patch(point="moe.expert_ids", layer=3, positions=[2, 12], values=[[4, 5], [0, 1]]),
    Patch(point="out.norm", positions=[0, 2, 99], values=np.arange(15.0).reshape(3, 5)),
    Hook("attn.z", double, layer=3),
    Hook("attn.scores", double, layer=3, positions=[0, 2]),
    Hook("attn.k", double, layer=3, channels="analysis"),
    Hook("attn.sink", double, layer=3),
    Hook("embed", double),
]


@pytest.mark.parametrize("intervention", EVERY, ids=str)
def test_each_row_changes_as_if_alone(intervention):
    point = POINTS[intervention.writes]
    x, after = apply_change(intervention)
    assert not torch.equal(x, after)
    assert not after.isnan().any()
    axis = 2 if point.has_head_axis else 1
    for row, padding in enumerate(PADDING):
        this = slice(row, row + 1)
        assert torch.equal(apply_change(intervention, (row,))[1], after[this])
        if "seq" not in point.axes:
            continue
        # Padding keeps its values, and the rest is the same as without padding.
        assert torch.equal(after[this].narrow(axis, 0, padding), x[this].narrow(axis, 0, padding))
        real, expected = (each[this].narrow(axis, padding, 5 - padding) for each in (x, after))
        if "key" in point.axes:
            real, expected = real[..., padding:], expected[..., padding:]
        at = place(point.name, (row,), begin=padding)
        assert torch.equal(intervention.change(real, at), expected)


@pytest.mark.parametrize("intervention", EVERY, ids=str)
def test_bfloat16_and_gradients(intervention):
    point = intervention.writes
    if point == "moe.expert_ids":
        return
    x = random(point)
    half = intervention.change(x.bfloat16(), place(point))
    assert half.dtype == torch.bfloat16
    x.requires_grad_()
    after = intervention.change(x, place(point))
    after[after.isfinite()].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("intervention", EVERY, ids=str)
def test_interventions_are_frozen_and_can_be_replaced_copied_and_saved(intervention):
    with pytest.raises(FrozenInstanceError):
        intervention.layer = 0
    again = replace(intervention)
    assert str(again) == str(intervention) == str(copy.deepcopy(intervention))
    assert str(pickle.loads(pickle.dumps(intervention))) == str(intervention)
    if not isinstance(intervention, Hook):
        assert again == intervention
        assert hash(again) == hash(intervention)


def test_heads():
    x, after = apply_change(AblateHead(layer=3, head=[0, 2], positions=[3, 12, 1]))
    expected = x.clone()
    for row, token in ((0, 1), (1, 3), (2, 2)):
        expected[row, [0, 2], token] = 0
    assert torch.equal(after, expected)
    x, after = apply_change(ScaleHead(layer=3, head="all", by=-2))
    expected = x * -2
    expected[1, :, :2] = x[1, :, :2]
    assert torch.equal(after, expected)
    x[0, 0] = math.inf
    at = place("attn.z")
    assert not AblateHead(layer=3, head=0).change(x, at)[0, 0].any()  # 0 * inf would be NaN


def test_sinks():
    x, after = apply_change(RemoveSink(layer=3, head=[1, 2]))
    expected = x.clone()
    expected[:, [1, 2]] = REMOVED
    assert torch.equal(after, expected)
    assert torch.equal(apply_change(SetSink(layer=3, head=[1, 2], to=-math.inf))[1], expected)
    assert torch.equal(apply_change(ShiftSink(layer=3, head=[1, 2], by=-math.inf))[1], expected)
    x, after = apply_change(ShiftSink(layer=3, head=0, by=math.log(2)))
    assert torch.equal(after[:, 0], x[:, 0] + math.log(2))
    assert torch.equal(after[:, 1:], x[:, 1:])
    assert not apply_change(SetSink(layer=3, head="all", to=0))[1].any()
    # If all rows share their sinks, the forward has them without a row axis.
    shared = RemoveSink(layer=3, head=1).change(torch.zeros(4), place("attn.sink"))
    assert shared.tolist() == [0, REMOVED, 0, 0]


def test_hidden_keys():
    x, after = apply_change(HideKeys(layer=3, keys=[2, 3, 1], first_query=3))
    hidden = after.isneginf()
    assert torch.equal(after[~hidden], x[~hidden])
    # The last of 7 keys is the last token's own: row 0 has keys 0 to 6, row 1 keys -4 to 2.
    for row, first_key in enumerate((0, -4, 8)):
        for token, query in enumerate(POSITIONS[row].tolist()):
            keys = [key for key in range(7) if first_key + key in (1, 2, 3) and query >= 3]
            assert hidden[row, :, token].nonzero()[:, 1].tolist() == keys * 4


def test_a_narrow_window():
    x, after = apply_change(NarrowWindow(layer=3, keys=2))
    hidden = after.isneginf()
    assert torch.equal(after[~hidden], x[~hidden])
    for row, first_key in enumerate((0, -4, 8)):
        for token, query in enumerate(POSITIONS[row].tolist()):
            keys = [key for key in range(7) if query >= 0 and first_key + key < query - 1]
            assert hidden[row, 0, token].nonzero()[:, 0].tolist() == keys


def labels(*channels):
    return [SimpleNamespace(channel=channel) for channel in channels]


def test_a_hidden_channel():
    tokens: Any = labels(None, "analysis", "analysis", None, "analysis", "final")
    expected = HideKeys(layer=(1,), keys=(4, 2, 1), first_query=5)
    assert hide_channel(tokens, "analysis", layer=1) == expected
    with pytest.raises(LabError, match=r"no token is on the channel 'x'; .* are analysis, final"):
        hide_channel(tokens, "x", layer=1)
    with pytest.raises(LabError, match="the channels here are none"):
        hide_channel([], "x", layer=1)
    with pytest.raises(LabError, match="needs a layer"):
        hide_channel(tokens, "final")


def test_experts_contributions():
    ids = random("moe.expert_ids")
    real = (POSITIONS >= 0)[..., None]
    chosen = ((ids == 1) | (ids == 4)) & real
    x, after = apply_change(ScaleExpert(layer=3, expert=[1, 4], by=0.5))
    assert torch.equal(after, torch.where(chosen, x * 0.5, x))
    x, after = apply_change(AblateExpert(layer=3, expert=[1, 4]))
    assert torch.equal(after, torch.where(chosen, 0, x))
    assert torch.equal(
        apply_change(AblateExpert(layer=3, expert="all"))[1], torch.where(real, 0, x)
    )
    x, after = apply_change(AblateSlot(layer=3, slot=1, positions=3))
    expected = x.clone()
    expected[0, 1, 1] = 0
    assert torch.equal(after, expected)
    x, after = apply_change(ScaleSlot(layer=3, slot=1, by=3, positions=3))
    expected[0, 1, 1] = 3 * x[0, 1, 1]
    assert torch.equal(after, expected)


def test_router_logits():
    real = POSITIONS >= 0
    x, after = apply_change(BanExpert(layer=3, expert=[0, 5]))
    assert torch.equal(after[..., 1:5], x[..., 1:5])
    assert after[..., [0, 5]][real].isneginf().all()
    assert torch.equal(after[~real], x[~real])
    x, after = apply_change(BiasExpert(layer=3, expert=2, by=1.5, positions=[0, 1]))
    expected = x.clone()
    expected[1, 2:4, 2] += 1.5
    assert torch.equal(after, expected)


def test_a_forced_expert():
    x, after = apply_change(ForceExpert(layer=3, expert=4, slot=1))
    for row, token in (POSITIONS >= 0).nonzero().tolist():
        was, now = x[row, token].tolist(), after[row, token].tolist()
        assert now == (was if 4 in was else [was[0], 4])
    ids = x.to(torch.uint8)
    assert ForceExpert(layer=3, expert=4, slot=1).change(ids, place("moe.expert_ids")).dtype == (
        torch.uint8
    )


def test_the_next_best():
    best = random("moe.router_logits").topk(3).indices
    x, after = apply_change(UseNextBest(layer=3, slot=0, positions=[4, 10]))
    expected = x.clone()
    expected[0, 2, 0], expected[2, 0, 0] = best[0, 2, 2], best[2, 0, 2]
    assert torch.equal(after, expected)
    assert torch.equal(find_next_best(random("moe.router_logits"), x), best[..., 2])


def test_if_all_others_are_banned_there_is_no_next_best():
    """The largest of several -inf is any of them, perhaps an expert that is already chosen."""
    logits = torch.tensor([[[-math.inf, 1.0, 2.0, -math.inf]]])
    ids = torch.tensor([[[2, 1]]])
    earlier = {"moe.router_logits": logits}
    at = place("moe.expert_ids", (0,), earlier_values=earlier, positions=torch.tensor([[0]]))
    assert torch.equal(UseNextBest(layer=3, slot=0).change(ids, at), ids)
    earlier["moe.router_logits"] = logits.roll(1)  # 0 and 1 are banned, and 1 is chosen
    assert torch.equal(UseNextBest(layer=3, slot=0).change(ids, at), torch.tensor([[[3, 1]]]))


def test_a_vector():
    x, after = apply_change(AddVector(point="embed", vector=VECTOR, by=3, positions=[2, 13]))
    expected = x.clone()
    for row, token in ((0, 0), (1, 4), (2, 3)):
        expected[row, token] += 3 * VECTOR
    assert torch.equal(after, expected)
    own = VECTOR.clone()
    add = AddVector(point="embed", vector=own)
    own.zero_()
    assert torch.equal(cast(Any, add.vector), VECTOR)
    own = VECTOR.clone().requires_grad_()
    add = AddVector(point="embed", vector=own, by=2)
    add.change(random("embed"), place("embed")).sum().backward()
    assert own.grad is not None
    assert own.grad.tolist() == [2 * 13] * 5  # 13 tokens are not padding


@pytest.mark.parametrize("point", ["attn.z", "attn.k_rot", "resid.post", "moe.expert_ids"])
def test_a_patch(point):
    values = random(point, rows=1, seed=1)
    values = (values.transpose(1, 2) if POINTS[point].has_head_axis else values)[0, :3]
    patch = Patch(point=point, layer=3, positions=[13, 2, 1], values=values)
    assert patch.positions == (1, 2, 13)
    x, after = apply_change(patch)
    expected = x.clone()
    by_row = expected.transpose(1, 2) if POINTS[point].has_head_axis else expected
    for row, token, value in ((0, 0, 1), (1, 3, 2), (1, 4, 1), (2, 3, 0)):
        by_row[row, token] = values[value]
    assert torch.equal(after, expected)
    assert after.stride() == x.stride()


def test_patches_take_arrays_and_copy_them():
    array = np.arange(10, dtype=np.float64).reshape(2, 5)[:, ::-1]
    array.flags.writeable = False
    patch = Patch(point="embed", positions=range(2), values=array)
    x = random("embed")
    after = patch.change(x, place("embed"))
    assert after[1, 2].tolist() == [4, 3, 2, 1, 0]
    tensor = torch.ones(1, 5, requires_grad=True)
    patch: Any = Patch(point="embed", positions=[0], values=tensor)
    assert not patch.values.requires_grad
    with torch.no_grad():
        tensor.zero_()
    assert patch.values.all()


def test_a_patch_from_a_trace():
    rows = torch.randn(3, 4, 3)
    fake: Any = type("Trace", (SimpleNamespace,), {})
    trace = fake(positions=(4, 6, 7), tensor=lambda point, layer: rows + layer)
    patch = Patch.from_trace(trace, "attn.z", np.int64(2), {7: 1, 4: 9})
    assert (patch.layer, patch.positions) == ((2,), (1, 9))
    assert torch.equal(cast(Any, patch.values), rows[[2, 0]] + 2)
    for point, onto, message in (
        ("attn.z", {5: 1}, "the trace does not have position 5"),
        ("attn.z", {}, "positions must be integers"),
        ("attn.z", {4: 1, 6: 1}, "a position is given twice"),
        ("attn", {4: 1}, "unknown point 'attn'"),
        ("attn.z", {4: -1}, r"positions must be integers of 0 or more, got \(-1,\)"),
    ):
        with pytest.raises(LabError, match=message):
            Patch.from_trace(trace, point, 2, onto)


def test_what_it_needs():
    assert [each for each in EVERY if each.needs_channels] == [EVERY[22]]
    assert Hook("embed", double).writes == "embed"
    assert "moe.expert_ids" in AblateExpert(layer=0, expert=0).READS


def record_calls(point, fn=None, rows=(0, 1, 2), **fields):
    """What a hook got in each call."""
    calls = []

    def record(x, here):
        calls.append((x, here))

    layer = {"layer": 3} if POINTS[point].is_per_layer else {}
    hook = Hook(point, record, **layer, **fields)
    x = random(point)[list(rows)]
    assert torch.equal(hook.change(x, place(point, rows)), x)
    return calls


def test_a_hook_gets_one_row_with_the_axes_of_a_trace_and_no_padding():
    x = random("attn.z").transpose(1, 2)
    calls = record_calls("attn.z")
    assert [len(values) for values, _ in calls] == [5, 3, 5]
    for row, (values, here) in enumerate(calls):
        padding = PADDING[row]
        assert torch.equal(values, x[row, padding:])
        assert (here.layer, here.point, here.row, here.is_prefill) == (3, "attn.z", row, True)
        assert torch.equal(here.positions, POSITIONS[row, padding:])
        assert torch.equal(here.token_ids, POSITIONS[row, padding:] + 100)
    assert [values.shape for values, _ in record_calls("attn.scores", rows=[0])] == [(5, 4, 7)]
    assert [values.shape for values, _ in record_calls("attn.sink")] == [(4,)] * 3
    assert [here.layer for _, here in record_calls("embed")] == [None] * 3
    assert [here.row for _, here in record_calls("embed", rows=(2, 0))] == [2, 0]


def test_a_hook_is_called_for_the_tokens_it_applies_to():
    calls = record_calls("attn.z", positions=[2, 1, 99])
    assert [(here.row, here.positions.tolist()) for _, here in calls] == [(0, [2]), (1, [1, 2])]
    calls = record_calls("attn.z", channels="final")
    assert [(here.row, here.positions.tolist()) for _, here in calls] == [(0, [4, 5]), (1, [2])]
    calls = record_calls("attn.z", channels=["final", "analysis"], positions=[1, 4, 6])
    assert [(here.row, here.positions.tolist()) for _, here in calls] == [(0, [4]), (1, [1])]
    assert not record_calls("attn.z", positions=99)
    with pytest.raises(LabError, match="the channels of these tokens are unknown"):
        Hook("attn.z", double, layer=3, channels="final").change(
            random("attn.z"), place("attn.z", channels=None)
        )
    nothing = place("attn.sink", positions=torch.full((3, 5), -1))
    assert torch.equal(
        Hook("attn.sink", double, layer=3).change(random("attn.sink"), nothing),
        random("attn.sink"),
    )


@pytest.mark.parametrize("point", ["attn.z", "attn.sink", "resid.pre", "attn.scores"])
def test_in_place_edits_and_returned_values_take_effect(point):
    def edit(x, here):
        x *= 2

    def edit_and_return(x, here):
        y = x * 2
        x.zero_()
        return y

    def mixed(x, here):
        return None if here.row == 1 else x.add_(x)

    x = random(point)
    at = place(point)
    expected = Hook(point, double, layer=3).change(x, at)
    for fn in (edit, edit_and_return):
        assert torch.equal(Hook(point, fn, layer=3).change(x, at), expected)
    assert torch.equal(x, random(point))
    result = Hook(point, mixed, layer=3).change(x, at)
    assert torch.equal(result[1], x[1])
    assert torch.equal(result[[0, 2]], expected[[0, 2]])
    assert result.stride() == x.stride()


def test_a_sink_shared_by_all_rows():
    def by_row(x, here):
        return x + here.row

    shared, hook = torch.arange(4.0), Hook("attn.sink", by_row, layer=3)
    assert torch.equal(hook.change(shared, place("attn.sink", (2,))), shared + 2)
    each = hook.change(shared, place("attn.sink", (0, 2)))
    assert torch.equal(each, torch.stack([shared, shared + 2]))


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x, here: x[:1], r"at attn.z in layer 3 must return None or a float32 tensor"),
        (lambda x, here: x[:1], r"\[5, 4, 3\] on cpu, got a float32 tensor \[1, 4, 3\] on cpu$"),
        (lambda x, here: x.transpose(0, 1), r"got a float32 tensor \[4, 5, 3\]"),
        (lambda x, here: x.double(), r"got a float64 tensor \[5, 4, 3\]"),
        (lambda x, here: x.numpy(), "got a value of type ndarray"),
        (lambda x, here: 0, "got a value of type int"),
        (lambda x, here: x.to("meta"), "on meta"),
        (resize, r"got a float32 tensor \[1\] on cpu"),
    ],
)
def test_a_wrong_result_is_refused(fn, message):
    with pytest.raises(LabError, match=message):
        Hook("attn.z", fn, layer=3).change(random("attn.z"), place("attn.z"))


def test_an_exception_reaches_the_caller():
    mine = KeyError("mine")

    def fail(x, here):
        raise mine

    with pytest.raises(KeyError) as raised:
        Hook("embed", fail).change(random("embed"), place("embed"))
    assert raised.value is mine


@pytest.mark.parametrize("point", ["attn.z", "attn.sink"])
def test_gradients_flow_through_a_hook(point):
    weight = torch.tensor(3.0, requires_grad=True)

    def scale(x, here):
        x.mul_(weight) if here.row == 0 else None
        return None if here.row == 0 else x * 5

    x = random(point).requires_grad_()
    hook = Hook(point, scale, layer=3, positions=None if point == "attn.sink" else [2, 12])
    hook.change(x, place(point)).sum().backward()
    expected = torch.ones_like(x)
    if point == "attn.sink":
        expected[0], expected[1:] = 3, 5
        changed = x[0]
    else:
        expected[0, :, 0], expected[1, :, 4], expected[2, :, 2] = 3, 5, 5
        changed = x[0, :, 0]
    assert x.grad is not None
    assert torch.equal(x.grad, expected)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, changed.detach().sum())


def test_a_hook_is_compared_by_identity():
    class Unhashable:
        __hash__: Any = None

        def __call__(self, x, here):
            return None

        def __eq__(self, other):
            raise AssertionError

    one, other = (Hook("embed", Unhashable()) for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2
    assert str(one) == "Hook(embed, fn=Unhashable)"
    assert Hook("embed", double) != Hook("embed", double)
