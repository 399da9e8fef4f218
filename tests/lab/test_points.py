"""The table of points: its rows against the forward, the files and the model's shapes."""

import pytest
import torch

from oss_lab.config import GPT_OSS_20B
from oss_lab.errors import LabError
from oss_lab.hooks.derived import DERIVED
from oss_lab.hooks.points import (
    ALWAYS,
    LINES,
    POINTS,
    SHOWN_BY_KERNELS,
    TAKEN_BY_KERNELS,
    check_points,
    lines_of,
)
from oss_lab.model import Recorder


def test_every_row_is_a_line_of_the_forward_or_is_derived(random_model, tiny_config):
    names = []

    def watch(point, layer, x):
        assert (layer is None) == (not POINTS[point].layered)
        names.append(point)
        return x

    random_model(tiny_config)(torch.arange(5)[None], hooks=watch)
    assert set(names) == LINES
    assert set(DERIVED) == POINTS.keys() - LINES
    order = [name for name in POINTS if name in LINES]
    assert list(dict.fromkeys(names)) == order


def test_sources_are_lines_and_handed_out_in_the_order_of_the_table():
    order = list(POINTS)
    for point in POINTS.values():
        assert set(point.sources) <= LINES
        assert list(point.sources) == sorted(point.sources, key=order.index)
        assert bool(point.sources) == (point.name in DERIVED)
        assert not point.sources or point.fixed


def test_what_follows_from_others_says_what_to_write_instead():
    for point in POINTS.values():
        if point.fixed:
            named = [name for name in POINTS if name in point.fixed]
            assert named
            assert not any(POINTS[name].fixed for name in named)


def test_what_the_kernels_do_not_show_has_a_reason():
    assert {name for name in LINES if not POINTS[name].inside} == SHOWN_BY_KERNELS
    assert all("stores" in POINTS[name].inside or "adds" in POINTS[name].inside
               for name in LINES - SHOWN_BY_KERNELS)  # fmt: skip


def test_the_kernels_serve_tier_one_and_the_residuals():
    always = (*ALWAYS, "resid.pre", "resid.mid", "resid.post")
    assert lines_of(always) <= SHOWN_BY_KERNELS
    assert {name for name in SHOWN_BY_KERNELS if POINTS[name].late} == {
        "moe.router_logits",
        "moe.expert_ids",
    }
    assert SHOWN_BY_KERNELS - {"moe.router_logits", "moe.expert_ids"} == TAKEN_BY_KERNELS
    assert not any(POINTS[name].late for name in set(POINTS) - SHOWN_BY_KERNELS)


def test_tier_one_takes_about_3_5_kilobytes_a_token_of_20b():
    total = 0
    for point in map(POINTS.__getitem__, ALWAYS):
        layers = GPT_OSS_20B.num_hidden_layers if point.layered else 1
        total += layers * point.nbytes(GPT_OSS_20B, torch.bfloat16, 1)
    # ids 96, weights 192, margins 96, sink mass 3,072, alternatives 160 bytes
    assert total == 96 + 192 + 96 + 3072 + 160


def test_derived_points_need_their_sources():
    assert lines_of(["attn.lse", "moe.out"]) == {"attn.scores", "attn.sink", "moe.out"}
    with pytest.raises(LabError, match=r"no point 'moe\.ids', but moe\.expert_ids;"):
        check_points(["moe.ids"])


def test_identities_between_points(random_model, tiny_config):
    """What the table's sentences say of each other, on fresh weights."""
    model = random_model(tiny_config)
    seen = Recorder(LINES)
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
