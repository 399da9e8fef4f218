"""The table of points against the forward pass, the files and the shapes of the model."""

import pytest
import torch

from oss_lab.config import GPT_OSS_20B
from oss_lab.errors import LabError
from oss_lab.hooks.derived import DERIVED
from oss_lab.hooks.points import (
    ALWAYS,
    FORWARD_POINTS,
    POINTS,
    RECORDABLE_IN_KERNELS,
    WRITABLE_IN_KERNELS,
    check_points,
    find_forward_points,
)
from oss_lab.model import Recorder


def test_every_point_is_in_the_forward_pass_or_derived(random_model, tiny_config):
    names = []

    def watch(point, layer, x):
        assert (layer is None) == (not POINTS[point].is_per_layer)
        names.append(point)
        return x

    random_model(tiny_config)(torch.arange(5)[None], hooks=watch)
    assert set(names) == FORWARD_POINTS
    assert set(DERIVED) == POINTS.keys() - FORWARD_POINTS
    order = [name for name in POINTS if name in FORWARD_POINTS]
    assert list(dict.fromkeys(names)) == order


def test_sources_are_in_the_forward_pass_and_exposed_in_the_order_of_the_table():
    order = list(POINTS)
    for point in POINTS.values():
        assert set(point.sources) <= FORWARD_POINTS
        assert list(point.sources) == sorted(point.sources, key=order.index)
        assert bool(point.sources) == (point.name in DERIVED)
        assert not point.sources or point.read_only_reason


def test_derived_points_name_the_point_to_write_instead():
    for point in POINTS.values():
        if point.read_only_reason is not None:
            named = [name for name in POINTS if name in point.read_only_reason]
            assert named
            assert all(POINTS[name].read_only_reason is None for name in named)


def test_points_that_the_kernels_do_not_expose_have_a_reason():
    reasons = {name: POINTS[name].not_in_kernels_reason for name in FORWARD_POINTS}
    assert {name for name, reason in reasons.items() if reason is None} == RECORDABLE_IN_KERNELS
    assert all("stor" in reason for reason in reasons.values() if reason is not None)


def test_the_kernels_expose_tier_one_and_the_residual_stream():
    always = (*ALWAYS, "resid.pre", "resid.mid", "resid.post")
    assert find_forward_points(always) <= RECORDABLE_IN_KERNELS
    late = {name for name, point in POINTS.items() if point.too_late_in_kernels_reason is not None}
    assert late == {"moe.router_logits", "moe.expert_ids"}
    assert RECORDABLE_IN_KERNELS - {"moe.router_logits", "moe.expert_ids"} == WRITABLE_IN_KERNELS


def test_tier_one_takes_about_3_5_kilobytes_per_token_of_20b():
    total = 0
    for point in map(POINTS.__getitem__, ALWAYS):
        layers = GPT_OSS_20B.num_hidden_layers if point.is_per_layer else 1
        total += layers * point.nbytes(GPT_OSS_20B, torch.bfloat16, 1)
    # ids 96, weights 192, margins 96, sink mass 3,072, alternatives 160 bytes
    assert total == 96 + 192 + 96 + 3072 + 160


def test_derived_points_need_their_sources():
    assert find_forward_points(["attn.lse", "moe.out"]) == {"attn.scores", "attn.sink", "moe.out"}
    with pytest.raises(LabError, match=r"point 'moe\.ids'; did you mean 'moe\.expert_ids'\? The"):
        check_points(["moe.ids"])
    for foreign in ("blocks.0.hook_resid_post", "model.model.layers[0].output"):
        with pytest.raises(LabError, match=r"^unknown point .*; see `oss_lab/hooks/NAMES\.md`"):
            check_points([foreign])


def test_identities_between_points(random_model, tiny_config):
    """The relations between points that the table's sentences describe, with new weights."""
    model = random_model(tiny_config)
    seen = Recorder(FORWARD_POINTS)
    model(torch.arange(40)[None], hooks=seen)

    def at(name, layer: int | None = 0):
        return seen.seen[name, layer][0]

    def derive(name, layer=0):
        return DERIVED[name](model, layer, *(at(source, layer) for source in POINTS[name].sources))

    def sink():
        return at("attn.sink")[:, :, None]

    def same(a, b):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

    same(at("resid.mid"), at("resid.pre") + at("attn.out"))
    same(at("resid.post"), at("resid.mid") + at("moe.out"))
    weighted = (at("moe.expert_out") * at("moe.expert_weights")[..., None]).sum(-2)
    same(at("moe.out"), weighted)
    same(at("attn.pattern").sum(-1), 1 - at("attn.sink_mass"))
    same(at("attn.sink_mass"), torch.sigmoid(sink() - lse_without_sink(at)))
    same((sink() - derive("attn.lse")).exp(), at("attn.sink_mass"))
    bias = model.block[0].attn.out.bias
    same(derive("attn.head_out").sum(1) + bias, at("attn.out"))
    last = tiny_config.num_hidden_layers - 1
    same(derive("out.layer_logits", last), at("out.logits", None))
    falling = at("moe.router_logits").sort(-1, descending=True).values
    slots = tiny_config.experts_per_token
    same(derive("moe.margin"), falling[..., slots - 1] - falling[..., slots])
    entropy = torch.distributions.Categorical(logits=at("moe.router_logits")).entropy()
    same(derive("moe.entropy"), entropy)


def lse_without_sink(at):
    return at("attn.scores").logsumexp(-1)
