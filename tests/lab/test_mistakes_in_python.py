"""The sentence for each mistake that newcomers make in Python, and what is never ignored."""

import re
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from oss_widgets import Chat
from safetensors.torch import save_file

import oss_lab
from oss_lab import plots
from oss_lab.analysis.attribution import attribution
from oss_lab.analysis.counterfactual import counterfactuals
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.interventions.base import build_example
from oss_lab.hooks.interventions.fields import REQUIRED

IDS = [1, 2, 3, 4, 5]
OTHER = [1, 2, 9, 4, 5]
api: Any = oss_lab  # without its types, which forbid these calls
view: Any = Chat


@pytest.fixture(scope="module")
def trace(nano):
    return nano.trace(IDS, ["resid.post", "embed"], layers=[0, 1])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: api.load(20), 'a model such as "nano", "20b" or "120b", or a .*, got 20$'),
        (lambda: api.load(None), "or a checkpoint folder, got None$"),
        (lambda: api.load(""), "or a checkpoint folder, got ''$"),
        (lambda: api.load("nano", dtype=""), "dtype must be 'bfloat16' or 'float32', got ''"),
        (lambda: api.load("nano", download="no"), "download must be True or False, got 'no'"),
        (lambda: api.load("nano", expert_cache_bytes=-1), "expert_cache_bytes is -1"),
        (lambda: api.read_trace(5), "expected the path of a trace file, got 5"),
        (lambda: api.read_trace("missing"), "missing does not exist"),
        (lambda: api.AblateHead(0, 3), r"by name, such as `AblateHead\(layer=0, head=3\)`$"),
        (lambda: api.ScaleHead(head=0), r"such as `ScaleHead\(layer=0, head=3, by=0\.5\)`$"),
        (lambda: api.AblateExpert(layr=1), "no argument 'layr'; did you mean 'layer'"),
        (
            lambda: api.Hook("attn.z", lambda x: x, layer=0),
            r"fn must take \(x, here\), but <lambda>",
        ),
        (
            lambda: api.Hook("attn.z", partial(lambda scale, x: x, 2), layer=0),
            r"fn must take \(x, here\), but the partial function takes \(x\)",
        ),
        (
            lambda: api.Sampling(temperature=float("nan")),
            "temperature is nan; it must be 0 or more",
        ),
        (lambda: api.Sampling(top_k=True), "top_k is True; it must be a whole number"),
        (lambda: check_index("row", 1, 1), "row 1 is out of range; the cache has only row 0$"),
    ],
)
def test_a_mistake_without_a_model(make, sentence):
    with pytest.raises(LabError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda lab: lab.chat("a", temprature=1), "'temprature'; did you mean 'temperature'"),
        (lambda lab: lab.trace("a", efort="low"), "'efort'; did you mean 'effort'"),
        (lambda lab: lab.chat("a", sampling={}), "sampling: expected a Sampling, got {}"),
        (lambda lab: lab.chat("a", points=""), "points: expected a list of names"),
        (lambda lab: lab.trace("a", raw="yes"), "raw must be True or False, got 'yes'"),
        (lambda lab: lab.trace("a", budget=float("nan")), "budget must be a number, got nan"),
        (lambda lab: lab.trace(IDS, layers=[4]), "layer 4 is out of range; this model has layers"),
        (lambda lab: lab.lens("a", target="b"), "target must be an integer, got 'b'"),
        (lambda lab: lab.patch(IDS, OTHER, by="head", point="embed"), "by='head' patches attn.z"),
        (lambda lab: lab.patch(IDS, OTHER, lambda: 0), r"metric must take \(logits\)"),
        (lambda lab: lab.gradients(IDS, lambda: 0), r"target must take \(logits\)"),
        (lambda lab: lab.model([IDS]), r"a tensor \[batch seq\], got list"),
        (lambda lab: lab.model("text"), r"a tensor \[batch seq\], got str"),
        (lambda lab: lab.model(torch.tensor([[0.5]])), "int64 or int32, got torch.float32"),
        (lambda lab: lab.model(torch.tensor(IDS)), r"with at least one token, got \[5\]"),
        (lambda lab: lab.model(torch.zeros(1, 1, 1).long()), r"one token, got \[1, 1, 1\]"),
        (lambda lab: lab.model(torch.zeros(1, 0).long()), r"one token, got \[1, 0\]"),
        (lambda lab: lab.model(torch.tensor([[640]])), "token id 640 is out of range"),
        (lambda lab: lab.model(torch.tensor([[-1]])), "token id -1 is out of range"),
        (lambda lab: lab.model(torch.tensor([IDS]), last=-1), "last is -1"),
        (lambda lab: lab.model(torch.tensor([IDS]), hooks=3), "hooks must be a function"),
        (lambda lab: lab.model(torch.tensor([IDS]), hooks=lambda x: x), r"\(point, layer, x\)"),
        (lambda lab: lab.model(torch.tensor([IDS]), hooks=lambda p, n, x: None), "got None"),
        (
            lambda lab: lab.model(torch.tensor([IDS]), hooks=lambda p, n, x: x[:, :1]),
            r"must return torch.float32 \[1, 5, 96\], got torch.float32 \[1, 1, 96\]",
        ),
        (
            lambda lab: lab.model(torch.tensor([IDS]), hooks=lambda p, n, x: x.double()),
            "got torch.float64",
        ),
        (lambda lab: view(3), "a Reply with its lab, a Trace or another view, got 3"),
        (lambda lab: view(lab, 5), "question must be text, got 5"),
        (lambda lab: view(lab, "a", "huge"), "effort must be 'low', 'medium' or 'high', got"),
    ],
)  # fmt: skip
def test_a_mistake_with_a_model(nano, call, sentence):
    with pytest.raises(LabError, match=sentence):
        call(nano)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("resid.pst", "unknown point 'resid.pst'; did you mean 'resid.post'"),
        (("resid.post", 99), "layer 99 is out of range; this trace has layers 0, 1$"),
        (("resid.post", None), "resid.post needs a layer; this trace has layers 0, 1$"),
        (("embed", 0), "embed is outside the layers; leave layer 0 out"),
        ("moe.margin", "does not contain 'moe.margin'; it contains resid.post, embed: record it"),
    ],
)
def test_what_a_trace_does_not_have(trace, key, sentence):
    with pytest.raises(LabError, match=sentence):
        trace[key]


def test_a_trace_replaces_a_trace_and_no_other_file(trace, tmp_path):
    file = tmp_path / "trace.safetensors"
    trace.save(file)
    trace.save(file)
    assert oss_lab.read_trace(file).tokens == tuple(IDS)
    with pytest.raises(LabError, match="create it first, or choose another path"):
        trace.save(tmp_path / "absent" / "trace.safetensors")
    weights = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    before = weights.read_bytes()
    with pytest.raises(LabError, match="exists and is not a trace; choose another path"):
        trace.save(weights)
    assert weights.read_bytes() == before


def all_interventions() -> list[type[Intervention]]:
    classes = (getattr(oss_lab, name) for name in oss_lab.__all__)
    return [each for each in classes if isinstance(each, type) and issubclass(each, Intervention)]


@pytest.mark.parametrize("owner", all_interventions(), ids=lambda owner: owner.__name__)
def test_the_example_in_each_message_works(owner):
    example = build_example(owner).strip("`")
    names = {"vector": torch.ones(4), "values": torch.ones(1, 4), "fn": lambda x, here: x}
    made = eval(example, {owner.__name__: owner} | names)
    assert isinstance(made, owner)
    assert not [name for name, value in vars(made).items() if value is REQUIRED]


def test_a_message_is_one_line():
    assert str(LabError(f"got {np.zeros((2, 2))!r}")) == "got array([[0., 0.], [0., 0.]])"


# Figures of degenerate inputs


@pytest.mark.parametrize(
    ("effects", "sentence"),
    [
        ([-0.5, 0.2], "it falls most, by 0.50 nats, without expert"),
        ([0.5, 0.2], "it rises without each of the experts, least, by 0.20 nats, without expert"),
        ([0.0, 0.3], "it does not fall without any of the experts, and changes least without"),
        ([0.0, 0.0], "it changes by +0.00 nats without any of the experts"),
        ([-0.4, -0.4], "it changes by -0.40 nats without any of the experts"),
    ],
)
def test_expert_effects_say_falls_only_of_a_fall(nano, effects, sentence):
    found = counterfactuals(nano, IDS, 2)
    values = torch.tensor(effects).repeat(4, 2)
    figure = plots.expert_effects(replace(found, without=values), nano.tokenizer)
    assert sentence in figure.sentence


def test_figures_refuse_nan(nano):
    found = counterfactuals(nano, IDS, 2)
    wrong = replace(found, without=torch.full((4, 4), torch.nan))
    with pytest.raises(LabError, match="16 of 16 values are NaN or infinite"):
        plots.expert_effects(wrong, nano.tokenizer)
    with pytest.raises(LabError, match="NaN or infinite"):
        plots.sink_mass(np.full((4, 8, 2), np.nan), nano.config)


def test_a_weight_above_one_is_drawn_as_it_is():
    labels = (plots.TokenLabel("a"),)
    figure = plots.expert_map([[[3]]], [[[3.0]]], labels)
    assert np.asarray(figure.plotly.data[0]["z"]).tolist() == [[300]]
    assert figure.sentence.endswith("and the layer uses 1 different expert for 1 choice.")


def test_equal_values_have_no_first_place(nano):
    ids = [[[0, 1, 2, 3]]]
    assert plots.expert_load(ids, experts=4).sentence == (
        "Every expert of every layer is chosen by 100% of 1 token."
    )
    assert plots.sink_mass(np.zeros((4, 8, 1)), nano.config).sentence == (
        "Every sink takes 0% of the attention on average."
    )
    parts = attribution(nano, IDS, 2, 5)
    nothing = replace(parts, heads=torch.zeros(4, 8))
    assert "no head (all are 0)" in plots.logit_parts(nothing, nano.tokenizer).sentence


def test_a_head_that_attends_to_nothing_has_no_farthest_token(nano):
    labels = (plots.TokenLabel("a"),) * 2
    pattern, sink = np.zeros((4, 8, 2, 2)), np.ones((4, 8, 2))
    figure = plots.attention(pattern, sink, labels, nano.config, heads=[(0, 0)])
    assert (
        "the sink takes 100% of the attention on average, and no token gets 1%" in figure.sentence
    )


def test_a_patching_without_a_difference_has_no_share(nano):
    found = nano.patch(IDS, OTHER, by="head", target=5, against=5, metric=lambda logits: logits[0])
    with pytest.raises(LabError, match="both runs score 0, so there is no difference to restore"):
        plots.patching(found, nano.tokenizer)
    worse = nano.patch(IDS, OTHER, by="head", target=5, against=6)
    worse = replace(worse, difference=torch.full((4, 8), worse.corrupted.difference))
    assert "restores most at no site, no site" in plots.patching(worse, nano.tokenizer).sentence


def test_given_tokens_have_no_probability(nano):
    reply = nano.chat("What is 3 * 4?", effort="low", continue_from="1", max_tokens=2)
    shown = plots.transcript(reply, nano.tokenizer)
    assert "nan" not in re.sub("finan", "", shown.html + shown.sentence)
    assert "given, not generated" in shown.html
