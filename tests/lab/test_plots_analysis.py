"""Figures of analyses from hand-made results: the drawing and the sentence."""

from typing import Any

import numpy as np
import pytest
import torch

from oss_lab import plots
from oss_lab.analysis.attribution import Attribution
from oss_lab.analysis.commitment import CommitmentStep
from oss_lab.analysis.counterfactual import Counterfactuals
from oss_lab.analysis.lens import Lens
from oss_lab.analysis.patching import Patching, PatchingScore
from oss_lab.errors import LabError
from oss_lab.plots.direct_and_effect import direct_and_effect
from oss_lab.record.token_labels import label_token_ids


def plotly_figure(figure) -> Any:
    """The plotly figure, whose attributes depend on what is drawn."""
    return figure.plotly


def effects():
    without = torch.tensor([[-0.5, 0.25], [0.0, -2.0]])
    return Counterfactuals(
        position=7,
        target=int.from_bytes(b"<"),
        logprob=-0.125,
        experts=torch.tensor([[3, 1], [0, 9]]),
        next_best=torch.tensor([4, 5]),
        without=without,
        instead=without / 2,
        without_kl=without.abs(),
        instead_kl=without.abs(),
    )


def test_expert_effects_name_each_expert_and_its_effect(tiny):
    figure = plots.expert_effects(effects(), tiny)
    left, right = plotly_figure(figure).select_traces(selector={"type": "heatmap"})
    assert left.text[1][1] == "9<br>-2.00"
    assert right.text[0][1] == "1→4<br>+0.12"
    assert (left.zmin, left.zmax, right.zmin, right.zmax) == (-2, 2, -2, 2)
    assert left.z.tolist() == [[-0.5, 0.25], [0, -2]]
    assert "the log-probability of “&lt;”" in plotly_figure(figure).layout.title.subtitle.text
    assert figure.sentence == (
        "The log-probability of “<” is -0.12 nats; it falls most, by 2.00 nats, without expert 9 of"
        " layer 1; the mean change over all 4 experts is -0.56 nats."
    )


def test_logit_parts_add_up_in_the_sentence(tiny):
    found = Attribution(
        position=3,
        token=ord("a"),
        against=ord("b"),
        logit=1.5,
        embedding=0.5,
        heads=torch.tensor([[1.0, -0.25, 0.0]]),
        bias=torch.tensor([0.25]),
        slots=torch.tensor([[-0.75, 0.75]]),
    )
    assert found.total == found.logit
    figure = plots.logit_parts(found, tiny)
    heads, slots = plotly_figure(figure).select_traces(selector={"type": "heatmap"})
    assert heads.z.shape == (1, 3)
    assert list(slots.x) == ["1st", "2nd"]
    assert heads.zmax == slots.zmax == 1
    assert figure.sentence == (
        "The logit of “a” minus that of “b” is 1.50: +0.50 from the embedding, +0.75 from the"
        " heads, +0.25 from the attention biases and +0.00 from the experts; the largest parts are"
        " head 0 of layer 0 (+1.00) and the 1st choice of layer 0 (-0.75)."
    )


def test_the_commitment_curve_marks_the_steps_with_the_replys_answer():
    steps = [
        CommitmentStep(0, "", "7", np.log(0.25)),
        CommitmentStep(4, "3*4=\n", "12", np.log(0.5)),
        CommitmentStep(6, "3*4=\n1", "9", np.log(0.12)),
        CommitmentStep(9, "3*4=\n12", "12", np.log(1.0)),
    ]
    figure = plots.commitment_curve(steps)
    (line,) = plotly_figure(figure).data
    assert line.y.tolist() == [25, 50, 12, 100]
    assert line.marker.symbol == ("circle-open", "circle", "circle-open", "circle")
    assert figure.sentence == (
        "If an answer is forced after each of 4 steps, it equals the reply's answer (12) from step"
        " 4 on, after 9 of 9 tokens; the probability of that answer is 25% before the thinking and"
        " 100% after it."
    )
    with pytest.raises(LabError, match="two steps"):
        plots.commitment_curve(steps[:1])


def test_model_text_is_not_markup():
    steps = [CommitmentStep(0, "<b>", "<i>1", -1.0), CommitmentStep(3, "$x$", "<script>", 0.0)]
    text = plots.commitment_curve(steps).plotly.to_json() or ""
    assert "<i>" not in text
    assert "$x$" not in text
    assert "<script>" not in text


def test_next_token_draws_the_tokens_of_the_first_way_and_counts_the_possible(tiny):
    half = torch.zeros(tiny.n_vocab)
    half[[70, 71, 72]] = torch.tensor([0.25, 0.5, 0.25])
    one = torch.zeros_like(half)
    one[71] = 1.0
    figure = plots.next_token({"all": half, "greedy": one}, tiny, most=3)
    assert figure.sentence == (
        "The most likely next token is “G”. all: 50%, 3 tokens possible; greedy: 100%, 1 token"
        " possible."
    )
    bars = plotly_figure(figure).data
    assert [list(bar.x) for bar in bars] == [["G", "F", "H"]] * 2
    assert [list(bar.y) for bar in bars] == [[50, 25, 25], [100, 0, 0]]
    with pytest.raises(LabError, match=r"sum to 0\.5; expected 1"):
        plots.next_token({"half": half / 2}, tiny)
    with pytest.raises(LabError, match="at least one way"):
        plots.next_token({}, tiny)


def test_lifts_are_ranked_and_their_intervals_counted():
    nan = float("nan")
    counted = [(1, "+", 2.0, 0.5, 4.0), (2, "\n", 8.0, 4.0, 9.0)]
    figure = plots.lift({"counted": counted, "one reply": [(3, "7", 1.5, nan, nan)]})
    assert figure.sentence == (
        "counted: 2 lifts, the largest 8.0 (expert 2: “↵”), 1 of the intervals above 1; one reply:"
        " 1 lift, the largest 1.5 (expert 3: “7”), no intervals."
    )
    first, second = plotly_figure(figure).data
    assert list(first.y) == [8.0, 2.0]
    assert list(first.error_y.arrayminus) == [4.0, 1.5]
    assert list(second.error_y.array) == [0.0]
    with pytest.raises(LabError, match="at least one number above 0"):
        plots.lift({"none": []})
    with pytest.raises(LabError, match="at least one series"):
        plots.lift({})


def test_a_part_far_from_the_diagonal_is_named():
    figure = direct_and_effect(
        {
            "heads": [("head 0", -0.25, 9.0), ("head <b>", 0.5, 0.25)],
            "choices": [("choice 1", 7.5, 5.0), ("choice 2", 0.0, -1.0)],
        }
    )
    assert figure.sentence == (
        "Of 4 parts, choice 1 (direct part +7.5, effect +5.0) has the largest direct part, and"
        " head 0 (direct part -0.2, effect +9.0) the largest effect."
    )
    drawn = plotly_figure(figure)
    assert [(list(trace.x), list(trace.y)) for trace in drawn.data] == [
        ([-0.25, 0.5], [9.0, 0.25]),
        ([7.5, 0.0], [5.0, -1.0]),
    ]
    assert drawn.data[0].text[1] == "head &lt;b&gt;"
    texts = {each.text for each in drawn.layout.annotations}
    assert {"choice 1", "head 0"} <= texts
    (line,) = drawn.layout.shapes
    assert (line.x0, line.x1) == (line.y0, line.y1) == (-1.0, 9.0)
    one = direct_and_effect({"all": [("head 0", 1.0, 2.0)]})
    assert one.sentence.count("head 0") == 2
    with pytest.raises(LabError, match="no parts to draw"):
        direct_and_effect({"heads": []})
    with pytest.raises(LabError, match="no parts to draw"):
        direct_and_effect({})
    with pytest.raises(LabError):
        direct_and_effect({"heads": [("head 0", float("nan"), 0.0)]})


def test_the_logit_lens_shows_each_layers_token_and_the_probability_of_the_next(tiny):
    found = Lens(
        positions=(4, 5),
        targets=(ord("<"), ord("b")),
        top_ids=torch.tensor([[[ord("x"), 0], [ord("b"), 0]], [[ord("<"), 0], [ord("b"), 0]]]),
        top_logprobs=torch.zeros(2, 2, 2),
        rank=torch.tensor([[3, 0], [0, 0]]),
        logprob=torch.tensor([[0.26, 0.5], [0.74, 1.0]]).log(),
        entropy=torch.zeros(2, 2),
        divergence=torch.zeros(2, 2),
    )
    figure = plots.logit_lens(found, tiny)
    heat, *_ = plotly_figure(figure).data
    assert heat.z.tolist() == [[26, 50], [74, 100]]
    assert list(heat.customdata[0]) == ["x", "b"]
    assert list(heat.customdata[1]) == ["&lt;", "b"]
    assert figure.table().parts[0][1] == [
        ["", "<", "b"],
        ["layer 0", "x (26)", "b (50)"],
        ["layer 1", "< (74)", "b (100)"],
    ]
    assert plotly_figure(figure).layout.xaxis.ticktext == ("&lt;", "b")
    assert figure.sentence == (
        "From the first layer to the last, the most likely token is the actual next token at 50%,"
        " 100% of 2 positions; the mean probability of the actual next token goes from 38% to 87%."
    )


def sweep(axis):
    return Patching(
        point="resid.mid",
        axis=axis,
        target=ord("a"),
        against=ord("b"),
        first=4,
        clean=PatchingScore(-0.1, 3.0),
        corrupted=PatchingScore(-4.0, -1.0),
        logprob=torch.zeros(1, 6),
        difference=torch.tensor([[-1.0, -1.0, -1.0, -1.0, 3.0, 1.0]]),
    )


def test_the_patching_figure_starts_shortly_before_the_sequences_differ(tiny):
    labels = label_token_ids(tiny, list(b"abcde$"))
    figure = plots.patching(sweep("position"), tiny, labels)
    heat, *_ = plotly_figure(figure).data
    assert heat.z.tolist() == [[0, 0, 0, 1, 0.5]]
    cells = plotly_figure(figure).select_traces(selector={"mode": "text"})
    assert [word for cell in cells for word in cell.customdata] == ["0", "0", "0", "+0.50", "+1.00"]
    assert figure.table().parts[0][1][1] == ["layer 0", "0", "0", "0", "1", "0.5"]
    assert plotly_figure(figure).layout.xaxis.ticktext == ("b", "c", "d", "e", "&#36;")
    assert figure.sentence == (
        "The clean run leads to “a” and the corrupted one to “b”; layer by layer, patching"
        " resid.mid restores most at 4 “e” (100%); on average a patch restores 30% of the"
        " difference."
    )
    heads = plots.patching(sweep("head"), tiny)
    assert plotly_figure(heads).data[0].x == ("0", "1", "2", "3", "4", "5")
    with pytest.raises(LabError, match="one for each position"):
        plots.patching(sweep("position"), tiny, labels[:3])
