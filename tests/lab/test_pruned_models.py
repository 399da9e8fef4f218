"""Fine-tunes with fewer experts, as people publish them: every analysis works, or says why not.

The models are nano with the experts from some number on cut off. Each then has 4 experts, of which
a token uses 4, 2 or 1.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import oss_lab
from oss_lab import AblateExpert, BanExpert, ForceExpert, ScaleSlot, UseNextBest, plots
from oss_lab.analysis.attribution import attribution
from oss_lab.analysis.branch import Tree
from oss_lab.analysis.counterfactual import counterfactuals
from oss_lab.analysis.effort import effort_lens
from oss_lab.analysis.routing.atlas import atlas
from oss_lab.analysis.routing.baselines import predictability
from oss_lab.analysis.routing.coactivation import coactivation
from oss_lab.analysis.routing.corpus import build_routing_corpus
from oss_lab.analysis.routing.paths import find_neighbors
from oss_lab.checkpoint.layouts import tensor_table
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.cli.main import main
from oss_lab.errors import LabError
from oss_lab.hooks.points import ALWAYS, POINTS

KEPT = 4
QUESTIONS = ("What is 3 * 4?", "What is 5 * 6?", "What is 7 + 8?")


@pytest.fixture(scope="module")
def write_pruned(tmp_path_factory):
    """`write_pruned(top)`: a folder with nano's first four experts, `top` of them per token."""

    def write(top):
        nano = open_checkpoint("nano")
        specs = {spec.name: spec for spec in tensor_table(nano.config)}
        tensors = {
            name: tensor[:KEPT] if specs[name].role.startswith(("expert", "router")) else tensor
            for name, tensor in nano.tensors()
        }
        config = replace(nano.config, num_experts=KEPT, experts_per_token=top)
        folder = tmp_path_factory.mktemp(f"top{top}")
        write_checkpoint(folder, config, tensors, layout="huggingface")
        return folder

    return write


@pytest.fixture(scope="module", params=[4, 2, 1])
def pruned(request, write_pruned):
    return oss_lab.load(write_pruned(request.param), verbose=False)


def test_b7_every_point_can_be_traced_and_saved(pruned, tmp_path):
    points = [name for name, point in POINTS.items() if name not in ("logits",)]
    trace = pruned.trace(QUESTIONS[0], points)
    top = pruned.config.experts_per_token
    assert trace["moe.expert_ids", 0].shape == (len(trace.tokens), top)
    assert torch.allclose(trace["moe.expert_weights", 3].sum(-1), torch.tensor(1.0))
    trace.save(tmp_path / "run.safetensors")
    again = oss_lab.read_trace(tmp_path / "run.safetensors")
    assert torch.equal(again.tensor("resid.post", 3), trace.tensor("resid.post", 3))


def test_b7_the_margin_is_infinite_only_if_all_experts_are_used(pruned):
    margin = pruned.trace(QUESTIONS[0], ALWAYS)["moe.margin", 1]
    assert bool(torch.isinf(margin).all()) == (pruned.config.experts_per_token == KEPT)
    assert not torch.isnan(margin).any()


def test_b7_a_reply_with_kernels_is_the_same(pruned):
    reply = pruned.chat(QUESTIONS[0], max_tokens=12)
    assert len(reply.ids) >= 1
    folder = pruned.checkpoint.folder
    fast = oss_lab.load(folder, kernels="cpu", verbose=False)
    ids = pruned.tokens_of(QUESTIONS[0])
    assert torch.allclose(fast.logits(ids), pruned.logits(ids), atol=1e-3)


def test_b7_lens_gradients_patching_and_attribution(pruned):
    ids, other = (pruned.tokens_of(question) for question in QUESTIONS[:2])
    plots.logit_lens(pruned.lens(ids), pruned.tokenizer)
    gradients = pruned.gradients(ids, 20, ["resid.pre", "moe.expert_weights"])
    assert gradients["resid.pre", 2].isfinite().all()
    patched = pruned.patch(ids, other, target=20, against=21)
    plots.patching(patched, pruned.tokenizer, pruned.trace(other, ["embed"]).labels)
    parts = attribution(pruned, ids, len(ids) - 1, 20)
    assert parts.slots.shape == (4, pruned.config.experts_per_token)
    plots.logit_parts(parts, pruned.tokenizer)
    trace = pruned.trace(ids, ["moe.expert_ids", "moe.expert_weights"])
    plots.expert_load(trace["moe.expert_ids"], experts=KEPT)
    plots.expert_map(trace["moe.expert_ids"], trace["moe.expert_weights"], trace.labels)


def test_b7_counterfactuals_and_swap_in(pruned):
    ids = pruned.tokens_of(QUESTIONS[0])
    swap = UseNextBest(layer=1, slot=0)
    if pruned.config.experts_per_token == KEPT:
        sentence = "this model uses all of its 4 experts for every token, so there is no next best"
        with pytest.raises(LabError, match=sentence):
            counterfactuals(pruned, ids, 3)
        with pytest.raises(LabError, match=sentence):
            pruned.logits(ids, interventions=[swap])
        return
    found = counterfactuals(pruned, ids, 3)
    plots.expert_effects(found, pruned.tokenizer)
    assert not (found.experts == found.next_best[:, None]).any()
    assert pruned.logits(ids, interventions=[swap]).isfinite().all()


def test_b7_interventions_on_experts(pruned):
    ids, top = pruned.tokens_of(QUESTIONS[0]), pruned.config.experts_per_token
    for change in (
        AblateExpert(layer="all", expert=2),
        ScaleSlot(layer=1, slot=0, by=0.5),
        ForceExpert(layer=1, slot=0, expert=3),
    ):
        assert pruned.logits(ids, interventions=[change]).isfinite().all()
    ban = BanExpert(layer=1, expert=2)
    if top == KEPT:
        with pytest.raises(LabError, match="expert"):
            pruned.logits(ids, interventions=[ban])
    else:
        assert pruned.logits(ids, interventions=[ban]).isfinite().all()
    with pytest.raises(LabError, match="expert 4 is out of range"):
        pruned.logits(ids, interventions=[AblateExpert(layer=1, expert=4)])


def test_b7_routing_atlas_pairs_and_paths(pruned):
    traces = pruned.trace_batch(list(QUESTIONS), ["moe.expert_ids"])
    corpus = build_routing_corpus(traces, KEPT)
    top = pruned.config.experts_per_token
    load = atlas(corpus, resamples=20).load.value
    assert torch.allclose(torch.tensor(load).sum(-1), torch.tensor(float(KEPT)).double())
    predictability(corpus, resamples=20, shuffles=2)
    find_neighbors(corpus, 0, 3, count=2, pairs=100)
    if top == 1:
        with pytest.raises(LabError, match="pairs need two or more"):
            coactivation(corpus, resamples=20)
        return
    pairs = coactivation(corpus, resamples=20)
    off = ~torch.eye(KEPT, dtype=torch.bool)
    assert torch.tensor(pairs.observed)[:, off].sum() == 4 * len(corpus) * top * (top - 1)
    if top == KEPT:  # every pair is in every token, as the null says
        ratios = torch.tensor(pairs.ratio.value)[:, off]
        assert torch.allclose(ratios, torch.ones_like(ratios), atol=1e-3)


def test_b7_effort_and_branches(pruned):
    effort_lens(pruned, QUESTIONS[0], max_tokens=16)
    tree = Tree(pruned, pruned.chat(QUESTIONS[0], max_tokens=8))
    assert len(tree.root.ids) >= 1


def test_layers_with_different_numbers_of_experts_are_refused(write_pruned, capsys):
    folder = write_pruned(2)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if name.startswith("model.layers.1.mlp") and tensor.shape[0] == KEPT:
            tensors[name] = tensor[:3].clone()
    save_file(tensors, file, {"format": "pt"})
    assert main(["generate", "x", "--model", str(folder)]) == 1
    err = capsys.readouterr().err
    assert (
        "router.weight in model.safetensors has shape [3, 96], not [4, 96]; all layers need 4"
        in err
    )
    assert err.count("\n") == 1

    config = json.loads((folder / "config.json").read_text())
    config["num_local_experts"] = [4, 3, 4, 4]
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["generate", "x", "--model", str(folder)]) == 1
    assert "num_local_experts is [4, 3, 4, 4]" in capsys.readouterr().err
