"""Every analysis of a lab with a learner's parts computes with them, or refuses in a sentence."""

import pytest
import torch

from oss_lab.analysis.attribution import attribution
from oss_lab.analysis.branch import Tree
from oss_lab.analysis.collect import collect
from oss_lab.analysis.commitment import commitment
from oss_lab.analysis.counterfactual import counterfactuals
from oss_lab.analysis.effort import effort_lens
from oss_lab.analysis.gradients import Target, gradient, integrated_gradients
from oss_lab.analysis.probe import read_features
from oss_lab.analysis.reach import influence
from oss_lab.course.parts import PARTS
from oss_lab.errors import LabError

TEXT = "What is 34 * 6?"
TARGET = Target(position=50, token=7)


def no_sinks(scores, sinks):
    shares = scores.softmax(-1)
    return shares, 1 - shares.sum(-1)  # a gradient passes through both


def layer_norm(x, scale, eps):
    return PARTS["rms_norm"].function(x - x.mean(-1, keepdim=True), scale, eps)


def scores_by_row(q, k):
    """The right scores, with one key per row of q: shared keys must be given to each row."""
    group = q.shape[1] // k.shape[1]
    return (
        torch.stack(
            [
                torch.stack([q[b, h] @ k[b, h // group].mT for h in range(q.shape[1])])
                for b in range(len(q))
            ]
        )
        / q.shape[-1] ** 0.5
    )


@pytest.fixture(scope="module")
def ids(nano):
    return nano.tokens_of(TEXT)


def lens(lab, ids, reply):
    return lab.lens(ids).logprob


def patch_positions(lab, ids, reply):
    return lab.patch(ids, [*ids[:50], ids[50] + 1, *ids[51:]], target=7, against=8).logprob


def patch_heads(lab, ids, reply):
    return lab.patch(
        ids, [*ids[:50], ids[50] + 1, *ids[51:]], by="head", target=7, against=8
    ).logprob


def gradients(lab, ids, reply):
    return lab.gradients(ids, 7)["embed"].values


def gradient_at(lab, ids, reply):
    return gradient(lab, ids, TARGET).gradient


def integrated(lab, ids, reply):
    return integrated_gradients(lab, ids, TARGET, steps=2).attributions


def ablated(lab, ids, reply):
    return counterfactuals(lab, ids, 50).without_kl


def influenced(lab, ids, reply):
    return influence(lab, ids, 3, 20).divergence


def committed(lab, ids, reply):
    return [step.logprob for step in commitment(lab, reply)]


def effort(lab, ids, reply):
    replies = effort_lens(lab, TEXT, max_tokens=20).replies.values()
    return [each.logprobs for each in replies]


def branched(lab, ids, reply):
    tree = Tree(lab, ids)
    node = tree.branch(tree.root, at=len(ids) - 3, max_tokens=4)
    assert tree.reply(node).parts == tuple(lab.parts)
    return [token.logprob for token in node.tokens]


def traced_node(lab, ids, reply):
    tree = Tree(lab, ids)
    trace = tree.trace(tree.root, ["resid.post"])
    assert trace.origin.parts == tuple(lab.parts)
    return trace["resid.post"].values


def probed(lab, ids, reply):
    labels = [n % 3 for n in range(len(ids))]
    return list(read_features(lab, [ids], [labels], "resid.post", None).values())


ANALYSES = [
    lens, patch_positions, patch_heads, gradients, gradient_at, integrated, ablated, influenced,
    committed, effort, branched, traced_node, probed,
]  # fmt: skip


@pytest.fixture(scope="module")
def reply(nano):
    return nano.chat(TEXT, effort="high")


def to_numbers(value):
    return torch.cat([torch.as_tensor(each).double().flatten() for each in value])


@pytest.mark.parametrize("analyze", ANALYSES)
def test_analyses_compute_with_the_parts(nano, ids, reply, analyze):
    def run(**parts):
        found = analyze(nano.with_parts(**parts), ids, reply)
        return to_numbers([found] if isinstance(found, float) else found)

    plain = run()
    torch.testing.assert_close(run(attention_scores=scores_by_row), plain, rtol=1e-2, atol=1e-3)
    changed = run(softmax_with_sink=no_sinks)
    assert len(changed) != len(plain) or (changed - plain).abs().max() > 1e-3


def test_the_sum_of_a_logits_parts_needs_the_librarys_norm(nano, ids):
    with pytest.raises(LabError, match="add up for the library's final norm only: use a lab witho"):
        attribution(nano.with_parts(rms_norm=layer_norm), ids, 50, 7)
    found = attribution(nano.with_parts(softmax_with_sink=no_sinks), ids, 50, 7)
    assert found.total == pytest.approx(found.logit, abs=1e-3)
    assert found.logit != pytest.approx(attribution(nano, ids, 50, 7).logit, abs=1e-3)


def test_held_experts_need_the_librarys_router(nano, ids):
    mine = nano.with_parts(router=PARTS["router"].function)
    with pytest.raises(LabError, match="the part router weighs only the experts that it chose"):
        integrated_gradients(mine, ids, TARGET, steps=2, experts="held")


def test_traces_of_parts_are_not_mixed_with_others(nano, ids, tmp_path):
    mine = nano.with_parts(softmax_with_sink=no_sinks)
    plain, other = tmp_path / "plain", tmp_path / "mine"
    collect(nano, [ids], ["resid.post"], plain)
    assert '"parts"' not in (plain / "collection.json").read_text()  # as in earlier versions
    with pytest.raises(LabError, match="it differs in parts; choose another folder"):
        collect(mine, [ids], ["resid.post"], plain)
    (trace,) = collect(mine, [ids], ["resid.post"], other)
    assert trace.origin.parts == ("softmax_with_sink",)
    for lab in (mine, nano):
        with pytest.raises(LabError, match="may have changed since"):
            collect(lab, [ids], ["resid.post"], other)
