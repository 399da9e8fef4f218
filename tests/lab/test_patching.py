"""Patching sweeps: every value against a full run with a Patch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from oss_kernels.backends import load_backend

from oss_lab.analysis import patched_rows
from oss_lab.analysis.patching import RESIDUAL, patch_heads, patch_positions
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AddVector, Hook, Patch, ScaleHead
from oss_lab.lab import Lab

SEQ, FIRST = 24, 9  # three windows of the tiny model; the sequences differ inside the second
CLEAN = list(range(SEQ))
CORRUPTED = [n + 100 if n in (FIRST, 12) else n for n in CLEAN]
PAIR: Any = {"target": 40, "against": 41}


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def full_run(lab, patch):
    """Log-probability of the target and the logit difference, from a full run."""
    with lab.intervene(patch):
        logits = lab.logits(CORRUPTED, last=1)[0].double()
    return float(logits.log_softmax(-1)[40]), float(logits[40] - logits[41])


@pytest.mark.filterwarnings("ignore::oss_lab.hooks.interventions.changes.NoEffectWarning")
@pytest.mark.parametrize("point", [*RESIDUAL, "attn.z", "attn.k_rot"])
def test_every_value_equals_a_full_run_with_the_patch(lab, monkeypatch, point):
    # One row at a time before 15, or two.
    monkeypatch.setattr(patched_rows, "SCORES", 4 * SEQ * (SEQ - 15))
    found = patch_positions(lab, CLEAN, CORRUPTED, point, **PAIR)
    assert (found.first, found.logprob.shape) == (FIRST, (2, SEQ))
    clean = lab.trace(CLEAN, [point])
    for layer in range(2):
        for position in range(FIRST, SEQ):
            patch = Patch.from_trace(clean, point, layer, {position: position})
            logprob, difference = full_run(lab, patch)
            assert float(found.logprob[layer, position]) == pytest.approx(logprob, abs=1e-4)
            assert float(found.difference[layer, position]) == pytest.approx(difference, abs=1e-4)
    assert (found.difference[:, :FIRST] == found.corrupted.difference).all()
    assert (found.restored[:, :FIRST] == 0).all()
    moved = (found.difference - found.corrupted.difference).abs() > 1e-4
    assert moved.sum() >= 8


def test_positions_that_are_not_run_would_change_nothing(lab):
    clean = lab.trace(CLEAN, ["resid.pre"])
    corrupted = lab.trace(CORRUPTED, ["resid.pre"])
    for layer in range(2):
        same = (
            clean.tensor("resid.pre", layer)[:FIRST] - corrupted.tensor("resid.pre", layer)[:FIRST]
        )
        assert same.abs().max() < 1e-5


def test_heads_are_patched_at_all_positions(lab, monkeypatch):
    monkeypatch.setattr(patched_rows, "SCORES", 3 * 4 * SEQ * (SEQ - FIRST))  # chunks of three rows
    found = patch_heads(lab, CLEAN, CORRUPTED, **PAIR)
    clean, own = (lab.trace(tokens, ["attn.z"]) for tokens in (CLEAN, CORRUPTED))
    for layer in range(2):
        for head in range(4):
            lower = own.tensor("attn.z", layer).clone()
            lower[:, head] = clean.tensor("attn.z", layer)[:, head]
            # other heads of this layer keep their values: nothing before them changed
            patch = Patch(point="attn.z", layer=layer, positions=tuple(range(SEQ)), values=lower)
            logprob, difference = full_run(lab, patch)
            assert float(found.logprob[layer, head]) == pytest.approx(logprob, abs=1e-4)
            assert float(found.difference[layer, head]) == pytest.approx(difference, abs=1e-4)
    assert (found.axis, found.restored.shape) == ("head", (2, 4))


def test_restoring_nothing_is_0_and_everything_is_1(lab):
    """The residual stream of the last position after the last layer decides the prediction."""
    found = patch_positions(lab, CLEAN, CORRUPTED, "resid.post", **PAIR)
    assert float(found.restored[1, -1]) == pytest.approx(1, abs=1e-3)
    assert float(found.restored_logprob[1, -1]) == pytest.approx(1, abs=1e-3)
    assert found.restored[1, :-1].abs().max() < 1e-3
    plain = [lab.logits(tokens, last=1)[0].double() for tokens in (CLEAN, CORRUPTED)]
    for logits, score in zip(plain, (found.clean, found.corrupted), strict=True):
        assert score.logprob == pytest.approx(float(logits.log_softmax(-1)[40]))
        assert score.difference == pytest.approx(float(logits[40] - logits[41]))


def test_active_interventions_apply_to_both_runs(lab):
    plain = patch_positions(lab, CLEAN, CORRUPTED, **PAIR)
    scale = ScaleHead(layer=1, head=2, by=-2.0)
    with lab.intervene(scale):
        found = patch_positions(lab, CLEAN, CORRUPTED, **PAIR)
        values = lab.trace(CLEAN, ["resid.pre"])
        patch = Patch.from_trace(values, "resid.pre", 1, {12: 12})
        logprob, _ = full_run(lab, patch)
    assert float(found.logprob[1, 12]) == pytest.approx(logprob, abs=1e-4)
    assert not torch.allclose(found.logprob, plain.logprob, atol=1e-3)


@pytest.mark.parametrize("point", ["resid.pre", "attn.out"])
def test_one_engine_computes_all_runs(lab, monkeypatch, point):
    """The kernels do not expose attn.out, so the reference also computes the runs without
    patches.
    """
    auto = Lab(lab.model, lab.tokenizer, kernels=load_backend("cpu"), is_auto=True)
    used = set()
    assert auto.engines.kernels is not None
    for engine in (auto.engines.reference, auto.engines.kernels):

        def forward(*args, engine=engine, compute=engine.forward, **options):
            used.add(engine.name)
            return compute(*args, **options)

        monkeypatch.setattr(engine, "forward", forward)
    patch_positions(auto, CLEAN, CORRUPTED, point, **PAIR)
    assert used == {"cpu" if point == "resid.pre" else "reference"}


@pytest.mark.parametrize("patch", [patch_positions, patch_heads])
def test_interventions_at_some_positions_apply_too(lab, patch):
    """A sweep is a batch of copies that start in the middle; each row has its own positions."""
    plain = patch(lab, CLEAN, CORRUPTED, **PAIR)
    seen = set()

    def watch(z, here):
        seen.update(here.positions.tolist())

    one, last = torch.ones(lab.config.hidden_size), SEQ - 1
    places = [FIRST - 1, 14, last]
    with lab.intervene(
        AddVector(point="resid.mid", layer=0, vector=one, positions=places),
        Hook("attn.z", watch, layer=0, positions=[2, last]),
    ):
        found = patch(lab, CLEAN, CORRUPTED, **PAIR)
        values = lab.trace(CLEAN, ["resid.pre"])
        logprob, _ = full_run(lab, Patch.from_trace(values, "resid.pre", 1, {12: 12}))
    assert seen == {2, last}
    assert not torch.allclose(found.logprob, plain.logprob, atol=1e-3)
    if patch is patch_positions:
        assert float(found.logprob[1, 12]) == pytest.approx(logprob, abs=1e-4)


def test_on_nano_a_full_layer_moves_the_digit_from_its_position_to_the_answer(nano):
    filler = "we and it by the new on but to so " * 2
    questions = [f"rose is 41, sky is {n}, wind is 86. {filler}. What is sky?" for n in (27, 97)]
    clean, corrupted = (nano.tokens_of(nano.chat(q, effort="low"))[:-3] for q in questions)
    found = patch_positions(nano, clean, corrupted)
    assert [nano.tokenizer.decode([each]) for each in (found.target, found.against)] == ["2", "9"]
    assert len(clean) - found.first > nano.config.sliding_window
    assert (found.restored[:, found.first] > 0.9).all()  # the digit is still at its own position
    assert found.restored[:, -1].max() < 0.1
    moved = patch_positions(nano, clean, corrupted, "attn.out")
    assert float(moved.restored[3, -1]) > 0.9  # and is moved by the last layer, a full layer


def test_mistakes_are_one_sentence(lab):
    for call, message in (
        (lambda: patch_positions(lab, CLEAN, CORRUPTED[:-1]), "24 tokens, the corrupted one 23"),
        (lambda: patch_positions(lab, CLEAN, CLEAN), "both sequences are the same"),
        (lambda: patch_heads(lab, CLEAN, CORRUPTED, target=3, against=3), "lead to token 3"),
        (lambda: patch_heads(lab, CLEAN, CORRUPTED, target=999), "the pair of tokens has id"),
        (lambda: patch_positions(lab, [], []), "the clean sequence is empty"),
        (
            lambda: patch_positions(lab, CLEAN, CORRUPTED, "moe.margin", **PAIR),
            "cannot be modified",
        ),
        (lambda: patch_positions(lab, CLEAN, CORRUPTED, "embed", **PAIR), "no value for each"),
        (
            lambda: patch_positions(lab, CLEAN, CORRUPTED, "attn.pattern", **PAIR),
            "not an activation",
        ),
        (lambda: patch_positions(lab, CLEAN, CORRUPTED, "resid", **PAIR), "unknown point 'resid'"),
    ):
        with pytest.raises(LabError, match=message):
            call()
