"""The fields of interventions: integers of any type, text forms, and what a class or a model
refuses."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from oss_lab.errors import LabError
from oss_lab.hooks.interventions import (
    AblateExpert,
    AblateHead,
    AblateSlot,
    AddVector,
    BanExpert,
    BiasExpert,
    ForceExpert,
    HideKeys,
    Hook,
    NarrowWindow,
    Patch,
    ScaleExpert,
    ScaleHead,
    SetSink,
    UseNextBest,
)

VECTOR = torch.arange(5.0)


def double(x, here):
    return x * 2


INTEGERS = [3, np.int32(3), torch.tensor(3), np.array(3), [3], (3,), {3}, range(3, 4)]
INTEGERS += [np.array([3]), torch.tensor([3, 3], dtype=torch.uint8)]


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
def test_any_integers(value):
    expected = AblateHead(layer=3, head=3, positions=3)
    given: Any = AblateHead(layer=value, head=value, positions=value)
    assert given == expected
    assert hash(given) == hash(expected)
    assert (given.layer, given.head, given.positions) == ((3,), (3,), (3,))
    assert all(type(number) is int for number in (*given.layer, *given.head, *given.positions))


def test_where_an_intervention_applies():
    some = AblateHead(layer=[3, 1, 3], head=0)
    assert some.layer == (1, 3)
    assert [some.applies_in(layer) for layer in (None, 0, 1, 2, 3)] == [0, 0, 1, 0, 1]
    everywhere = AblateHead(layer="all", head=0)
    assert [everywhere.applies_in(layer) for layer in (None, 0, 9)] == [False, True, True]
    outside = Hook("embed", double)
    assert [outside.applies_in(layer) for layer in (None, 0)] == [True, False]


@pytest.mark.parametrize(
    ("intervention", "text"),
    [
        (AblateHead(layer=3, head=[0, 2]), "AblateHead(layer=3, head=0,2)"),
        (
            ScaleHead(layer=range(4), head="all", by=1, positions=[9, 7]),
            "ScaleHead(layer=0-3, positions=7,9, head=all, by=1.0)",
        ),
        (HideKeys(layer="all", keys=[1, 2, 5], first_query=6), "keys=1-2,5, first_query=6)"),
        (AddVector(point="embed", vector=torch.zeros(1)), "point=embed, vector=#af5570f5, by=1.0)"),
        (Hook("attn.z", double, layer=3), "Hook(attn.z, layer=3, fn=double)"),
        (Hook("embed", lambda x, here: x), "Hook(embed, fn=<lambda>)"),
        (
            Hook("attn.z", double, layer="all", positions=[1, 2], channels=["final", "analysis"]),
            "Hook(attn.z, layer=all, fn=double, positions=1-2, channels=analysis,final)",
        ),
    ],
)
def test_interventions_as_text(intervention, text):
    assert str(intervention).endswith(text)


def test_other_values_are_shown_differently():
    one, other = (AddVector(point="embed", vector=each) for each in (VECTOR, -VECTOR))
    assert str(one) != str(other)
    assert str(one) == str(AddVector(point="embed", vector=VECTOR.numpy()))


HEAD = {"layer": 0, "head": 0}
VALUES = {"point": "embed", "positions": [0], "values": torch.ones(1, 5)}
NAN = [0, math.nan]


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (
            AblateHead,
            {"head": 0},
            "^AblateHead needs a layer: an integer, a list or range, or 'all', such as `Ab",
        ),
        (AblateHead, {"layer": None, "head": 0}, "AblateHead needs a layer"),
        (
            AblateHead,
            {"layer": 0},
            "AblateHead needs a head: an integer, a list or range, or 'all'",
        ),
        (AblateExpert, {"layer": 0}, "AblateExpert needs an expert: an integer"),
        (ScaleHead, HEAD, "ScaleHead needs by: a finite number"),
        (SetSink, HEAD, "SetSink needs to: a number"),
        (AblateSlot, {"layer": 0}, "AblateSlot needs a slot: an integer"),
        (HideKeys, {"layer": 0, "keys": 1}, "HideKeys needs first_query: an integer of 0 or more"),
        (Hook, {}, "Hook needs a point: the name of a hook point"),
        (Hook, {"point": "embed"}, r"Hook needs fn: a function fn\(x, here\)"),
        (Hook, {"point": "attn.z", "fn": double}, "Hook needs a layer"),
        (Patch, VALUES | {"point": "attn.q"}, "Patch needs a layer: an integer, such as `Patch"),
        (AblateHead, {"layer": "two", "head": 0}, "layer must be an integer, .* got 'two'"),
        (AblateHead, {"layer": [], "head": 0}, r"layer must be .* got \[\]"),
        (AblateHead, {"layer": True, "head": 0}, "layer must be .* got True"),
        (AblateHead, {"layer": [0, True], "head": 0}, "layer must be .* got"),
        (AblateHead, {"layer": torch.ones(2).bool(), "head": 0}, r"got Tensor of bool \[2\]"),
        (AblateHead, {"layer": np.bool_(1), "head": 0}, "layer must be"),
        (AblateHead, {"layer": torch.zeros(2, 2).long(), "head": 0}, "layer must be"),
        (AblateHead, {"layer": b"a", "head": 0}, "layer must be"),
        (AblateHead, {"layer": 0, "head": 1.5}, "head must be .* got 1.5"),
        (AblateHead, {"layer": 0, "head": np.ones(2)}, r"got ndarray of float64 \[2\]"),
        (AblateHead, {"layer": 0, "head": None}, "head must be .* got None"),
        (AblateHead, HEAD | {"positions": -1}, "positions must be integers of 0 or more, got -1"),
        (AblateHead, HEAD | {"positions": "all"}, "positions must be integers"),
        (AblateHead, HEAD | {"positions": []}, "positions must be integers"),
        (AblateHead, HEAD | {"positions": 2**63}, "positions must be integers"),
        (ScaleHead, HEAD | {"by": "x"}, "^ScaleHead: by must be a finite number, got 'x'$"),
        (ScaleHead, HEAD | {"by": math.nan}, "got nan"),
        (ScaleHead, HEAD | {"by": math.inf}, "got inf"),
        (ScaleHead, HEAD | {"by": False}, "got False"),
        (ScaleHead, HEAD | {"by": 1j}, "got 1j"),
        (ScaleHead, HEAD | {"by": 10**400}, "by must be a finite number"),
        (ScaleHead, HEAD | {"by": torch.ones(2)}, "by must be a finite number"),
        (SetSink, HEAD | {"to": math.nan}, "to must be a number, or -inf to remove the sink"),
        (SetSink, HEAD | {"to": math.inf}, "to must be a number, or -inf"),
        (SetSink, HEAD | {"to": 0, "positions": 1}, "applies to every token; leave positions out"),
        (NarrowWindow, {"layer": 0, "keys": 3, "positions": 1}, "leave positions out"),
        (NarrowWindow, {"layer": 0, "keys": 0}, "an integer of 1 or more .* got 0"),
        (HideKeys, {"layer": 0, "keys": [-1], "first_query": 0}, "keys must be integers of 0 or"),
        (ForceExpert, {"layer": 0, "expert": [1], "slot": 0}, "expert must be an integer, got"),
        (ForceExpert, {"layer": 0, "expert": 1, "slot": "all"}, "slot must be an integer, got"),
        (BiasExpert, {"layer": 0, "expert": 1, "by": -math.inf}, "to ban an expert, use BanExpert"),
        (AddVector, {"point": "moe.margin", "vector": VECTOR}, "use moe.router_logits instead"),
        (AddVector, {"point": "moe", "vector": VECTOR}, "AddVector: unknown point 'moe'"),
        (
            AddVector,
            {"point": 5, "vector": VECTOR},
            "point must be the name of a hook point, got 5",
        ),
        (AddVector, {"point": "attn.q", "layer": 0, "vector": VECTOR}, r"axes \[seq hidden\]"),
        (
            AddVector,
            {"point": "embed", "layer": 0, "vector": VECTOR},
            "embed is outside the layers; leave",
        ),
        (AddVector, {"point": "embed", "layer": "all", "vector": VECTOR}, "leave layer out"),
        (AddVector, {"point": "embed", "vector": [["a"]]}, "vector must be finite numbers"),
        (AddVector, {"point": "embed", "vector": None}, "vector must be finite numbers"),
        (AddVector, {"point": "embed", "vector": NAN}, "vector must be finite numbers"),
        (
            AddVector,
            {"point": "embed", "vector": torch.ones(1, 5)},
            "vector must be finite numbers",
        ),
        (AddVector, {"point": "embed", "vector": VECTOR, "by": math.nan}, "by must be a finite"),
        (Patch, VALUES | {"positions": None}, "positions must be integers"),
        (Patch, VALUES | {"positions": [0, 1]}, "a position for each of the 1 values, got 2"),
        (Patch, VALUES | {"values": torch.ones(2, 5), "positions": [1, 1]}, "given twice"),
        (Patch, VALUES | {"values": [NAN]}, "values must be numbers other than NaN"),
        (Patch, VALUES | {"values": torch.ones(1, 5) > 0}, "values must be numbers"),
        (Patch, VALUES | {"values": torch.ones(1, 5).to_sparse()}, "values must be numbers"),
        (Patch, VALUES | {"values": [], "positions": [0]}, "values must be numbers"),
        (Patch, VALUES | {"layer": 0}, "embed is outside the layers"),
        (Patch, VALUES | {"point": "attn.q", "layer": [0, 1]}, "layer must be an integer, got"),
        (Patch, VALUES | {"point": "attn.q", "layer": "all"}, "layer must be an integer, got"),
        (Patch, VALUES | {"point": "attn.pattern", "layer": 0}, "one value per token"),
        (Patch, VALUES | {"point": "attn.sink", "layer": 0}, "one value per token"),
        (
            Patch,
            VALUES | {"point": "moe.expert_ids", "layer": 0},
            "expert ids; give integers",
        ),
        (Hook, {"point": "embed", "fn": 3}, r"fn must be a function fn\(x, here\), got 3"),
        (Hook, {"point": "attn.lse", "fn": double, "layer": 0}, "attn.lse cannot be modified"),
        (
            Hook,
            {"point": "out.logits", "fn": double, "layer": 0},
            "out.logits is outside the layers",
        ),
        (Hook, {"point": "embed", "fn": double, "channels": []}, "channels must be the name of"),
        (Hook, {"point": "embed", "fn": double, "channels": 3}, "channels must be the name of"),
        (
            Hook,
            {"point": "attn.sink", "fn": double, "layer": 0, "channels": "final"},
            "the same for every token; leave positions and channels out",
        ),
    ],
)
def test_mistakes_are_one_sentence(make, fields, message):
    with pytest.raises(LabError, match=message) as raised:
        make(**fields)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200 or "unknown point" in str(raised.value)


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (
            AblateHead(layer=2, head=0),
            r"AblateHead\(layer=2, head=0\): layer 2 is out of range; this",
        ),
        (
            AblateHead(layer=[0, -1], head=0),
            "layer -1 is out of range; this model has layers 0 to 1",
        ),
        (AblateHead(layer="all", head=99), "head 99 is out of range; this model has heads 0 to 3"),
        (
            ScaleExpert(layer="all", expert=[1, 4], by=0),
            "expert 4 is out of range; this model has experts 0 to 3",
        ),
        (ForceExpert(layer=0, expert=-1, slot=0), "expert -1 is out of range"),
        (
            ForceExpert(layer=0, expert=0, slot=2),
            "slot 2 is out of range; this model has slots 0 to 1",
        ),
        (Hook("attn.z", double, layer=2), "layer 2 is out of range"),
        (BanExpert(layer=0, expert=[0, 1, 3]), "leaves 1 of 4 experts, but every token needs 2"),
        (BanExpert(layer=0, expert="all"), "leaves 0 of 4 experts"),
        (AddVector(point="embed", vector=VECTOR), r"the vector has shape \[5\]; expected \[64\]"),
        (
            Patch(point="attn.q", layer=0, values=torch.ones(1, 3), positions=0),
            r"the value at a position has shape \[3\]; expected \[4, 16\]",
        ),
        (
            Patch(point="moe.expert_ids", layer=0, values=[[0, 4]], positions=0),
            "expert ids must be from 0 to 3",
        ),
    ],
)
def test_what_a_model_does_not_have(intervention, message, tiny_config):
    with pytest.raises(LabError, match=message):
        intervention.check(tiny_config)


def test_what_a_model_has(tiny_config):
    for each in (
        BanExpert(layer="all", expert=[0, 1]),
        AblateHead(layer=1, head="all"),
        UseNextBest(layer=0, slot=1),
        Patch(point="moe.expert_ids", layer=0, values=[[0, 3]], positions=0),
        AddVector(point="out.norm", vector=torch.ones(64)),
    ):
        each.check(tiny_config)
    every = replace(tiny_config, experts_per_token=4)
    with pytest.raises(LabError, match="uses all of its 4 experts for every token, so there is no"):
        UseNextBest(layer=0, slot=1).check(every)
