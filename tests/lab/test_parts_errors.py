"""A part that fails, or returns what the model cannot use, is named in one sentence."""

import inspect
import sys

import pytest
import torch

import oss_lab
from oss_lab.course import parts
from oss_lab.course.parts import PARTS, TABLE, describe_parts
from oss_lab.errors import LabError

IDS = [5] * 50


SENTENCES = [
    (
        "swiglu",
        lambda gate, up, alpha, limit: gate[..., :-1],
        r"the part swiglu returned a tensor \[1, 50, 4, 95\] float32 on cpu; expected a tensor"
        r" \[1, 50, 4, 96\] float32 on cpu",
    ),
    (
        "rms_norm",
        lambda x, scale, eps: x.double(),
        r"the part rms_norm returned a tensor \[1, 50, 96\] float64 on cpu; expected a tensor"
        r" \[1, 50, 96\] float32 on cpu",
    ),
    (
        "rms_norm",
        lambda x, scale, eps: x.to("meta"),
        r"the part rms_norm returned a tensor .* on meta; expected a tensor .* on cpu",
    ),
    (
        "rms_norm",
        lambda x, scale, eps: x.to_sparse(),
        r"the part rms_norm returned a sparse tensor; expected a tensor \[1, 50, 96\]",
    ),
    (
        "rms_norm",
        lambda x, scale, eps: sys.exit("bye"),
        "the part rms_norm raised SystemExit: bye; its signature is",
    ),
    (
        "rotate",
        lambda x, cos, sin: None,
        r"the part rotate returned NoneType None; expected a tensor \[1, 8, 50, 16\] float32",
    ),
    (
        "rotate",
        lambda x, cos, sin: 1 // 0,
        "the part rotate raised ZeroDivisionError: .*; its signature is rotate\\(x ",
    ),
    (
        "rms_norm",
        lambda x, scale, eps: x / 0 * 0,
        "the part rms_norm returned a tensor .* with 4800 NaN from arguments without NaN",
    ),
    (
        "softmax_with_sink",
        lambda scores, sinks: scores,
        "the part softmax_with_sink returned a tensor .*; expected 2 tensors, as in softmax_with_",
    ),
    (
        "softmax_with_sink",
        lambda scores, sinks: (scores.softmax(-1), sinks),
        r"the part softmax_with_sink returned result 1 a tensor \[1, 8\] .* expected a tensor"
        r" \[1, 8, 50\]",
    ),
    (
        "router",
        lambda logits, slots: (logits.topk(slots).indices + 30, logits.topk(slots).values),
        r"the part router returned result 0 with index \d\d; expected 0 to 31",
    ),
    (
        "router",
        lambda logits, slots: PARTS["router"].function(logits, 3),
        r"result 0 a tensor \[1, 50, 3\] int64 on cpu; expected a tensor \[1, 50, 4\] int64",
    ),
    (
        "visible_keys",
        lambda queries, keys, window: PARTS["visible_keys"].function(queries, keys, window).float(),
        r"returned a tensor \[1, 50, 50\] float32 on cpu; expected a tensor .* bool on cpu",
    ),
    (
        "yarn_frequencies",
        lambda head_dim, theta, factor, low, high: [1.0] * 8,
        r"yarn_frequencies returned list \[1.0, .*; expected a tensor \[8\] float32 on cpu",
    ),
    (
        "attention_scores",
        lambda q, k: q[:, :2] @ k.mT,
        r"the part attention_scores returned a tensor \[1, 2, 50, 50\] float32 on cpu; expected a"
        r" tensor \[1, 8, 50, 50\]",
    ),
    (
        "yarn_concentration",
        lambda factor: float("nan"),
        "the part yarn_concentration returned float nan; expected a finite number",
    ),
    (
        "yarn_concentration",
        lambda factor: True,
        "the part yarn_concentration returned bool True; expected a finite number",
    ),
    (
        "split_gate_up",
        lambda gate_up: gate_up.chunk(2, -2),
        r"split_gate_up returned result 0 a tensor \[1, 50, 2, 192\] .*; expected a tensor"
        r" \[1, 50, 4, 96\]",
    ),
    (
        "mxfp4",
        lambda blocks, scales, dtype: PARTS["mxfp4"].function(blocks, scales, dtype).flatten(),
        r"the part mxfp4 returned a tensor \[18432\] .*; expected a tensor \[192, 96\] float32",
    ),
]


@pytest.mark.parametrize(("name", "function", "sentence"), SENTENCES)
def test_what_a_part_did_wrong_is_one_sentence(nano, name, function, sentence):
    with pytest.raises(LabError, match=sentence):
        nano.with_parts(**{name: function}).logits(IDS)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (3, "the part sample returned int 3; expected a list of 1 token ids from 0 to 639"),
        ([1, 2], r"the part sample returned list \[1, 2\]; expected a list of 1 token ids"),
        ([640], "the part sample returned the id 640; expected a list of 1 token ids"),
        ([0.5], "the part sample returned the id 0.5; expected a list of 1 token ids"),
        ([True], "the part sample returned the id True; expected a list of 1 token ids"),
        (
            [torch.tensor(0.5)],
            r"the part sample returned the id tensor\(0.5000\); expected a list of 1 token ids",
        ),
    ],
)
def test_what_a_sampler_did_wrong(nano, returned, sentence):
    mine = nano.with_parts(sample=lambda logits, samplings, draws: returned)
    with pytest.raises(LabError, match=sentence):
        mine.chat("Hi")


def test_what_cannot_be_a_part(nano):
    with pytest.raises(LabError, match=r"no part 'rooter'; did you mean 'router'\? The parts are"):
        nano.with_parts(rooter=PARTS["router"].function)
    with pytest.raises(LabError, match=r"the part router must be a function router.*, got int 4"):
        nano.with_parts(router=4)
    with pytest.raises(LabError, match="the part rms_norm must accept 3 arguments: expected a fun"):
        nano.with_parts(rms_norm=lambda x: x)


def test_a_router_cannot_weigh_the_choice_of_an_intervention(nano):
    mine = nano.with_parts(router=PARTS["router"].function)
    with pytest.raises(LabError, match="weighs only the experts that it chose"):
        mine.logits("Hi", interventions=[oss_lab.ForceExpert(layer=1, expert=3, slot=0)])


def words(annotation):
    """The axes of an annotation as the table writes them; "" for a number."""
    if hasattr(annotation, "dim_str"):
        return f" [{annotation.dim_str}]"
    return ""


@pytest.mark.parametrize("part", TABLE, ids=lambda part: part.name)
def test_signatures_are_those_of_the_functions(part):
    found = inspect.signature(inspect.unwrap(part.function))
    names = ", ".join(f"{each.name}{words(each.annotation)}" for each in found.parameters.values())
    result = found.return_annotation
    several = getattr(result, "__args__", ()) if not words(result) else ()
    results = [words(each).strip() for each in several]
    returned = f"({', '.join(results)})" if any(results) else words(result).strip()
    if not returned:  # ids, messages or a number
        returned = result.__name__ if isinstance(result, type) else str(result)
    assert part.signature == f"({names}) -> {returned}"


def test_the_table_is_in_the_help():
    assert describe_parts() in str(inspect.getdoc(parts))
    for part in TABLE:
        assert f"{part.name}{part.signature}\n    {part.replaces}" in describe_parts()
