"""Each analysis against a plain computation of what it claims."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from oss_lab.analysis.attribution import attribution
from oss_lab.analysis.commitment import commitment
from oss_lab.analysis.counterfactual import counterfactuals
from oss_lab.analysis.effort import effort_lens, jensen_shannon
from oss_lab.analysis.forwards import build_cache, run_forward
from oss_lab.engine.batch import Batch
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.engine.request import Request
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AblateSlot, UseNextBest
from oss_lab.lab import Lab
from oss_lab.record.builder import final_header

SEQ = 40
TOKENS = list(range(SEQ))


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def test_results_are_ordinary_tensors(lab):
    """Autograd accepts them, as it accepts tensors read from a trace."""
    results = [
        lab.lens(TOKENS), counterfactuals(lab, TOKENS, 3), attribution(lab, TOKENS, 3, 40),
        lab.patch(TOKENS, [5, *TOKENS[1:]], target=40, against=41),
    ]  # fmt: skip
    held = [value for each in results for value in vars(each).values() if torch.is_tensor(value)]
    assert len(held) > 10
    assert not any(value.is_inference() for value in held)


def test_a_built_cache_is_continued_outside_inference_mode(lab):
    cache = build_cache(lab, TOKENS[:30], lab.engines.main)
    logits = run_forward(lab, torch.tensor([TOKENS[30:]]), cache)[0]
    torch.testing.assert_close(logits, lab.logits(TOKENS, last=10), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("position", [0, 1, 30, SEQ - 2])
def test_counterfactuals_equal_full_runs_with_interventions(lab, position):
    found = counterfactuals(lab, TOKENS, position)
    prefix, target = TOKENS[: position + 1], TOKENS[position + 1]
    plain = lab.logits(prefix, last=1)[0].double().log_softmax(-1)
    assert found.logprob == pytest.approx(float(plain[target]), abs=1e-5)
    routed = lab.trace(prefix, ["moe.expert_ids", "moe.router_logits"], positions=[position])
    for layer in range(lab.config.num_hidden_layers):
        slots = lab.config.experts_per_token
        assert found.experts[layer].tolist() == routed.tensor("moe.expert_ids", layer)[0].tolist()
        logits = routed.tensor("moe.router_logits", layer)[0]
        assert int(found.next_best[layer]) == int(logits.argsort(descending=True)[slots])
        for slot in range(slots):
            where = {"layer": layer, "slot": slot, "positions": (position,)}
            for change, delta, divergence in (
                (AblateSlot(**where), found.without, found.without_kl),
                (UseNextBest(**where), found.instead, found.instead_kl),
            ):
                with lab.intervene(change):
                    changed = lab.logits(prefix, last=1)[0].double().log_softmax(-1)
                assert float(delta[layer, slot]) == pytest.approx(
                    float(changed[target] - plain[target]), abs=1e-4
                )
                expected = float((plain.exp() * (plain - changed)).sum())
                assert float(divergence[layer, slot]) == pytest.approx(expected, abs=1e-4)


def test_a_map_of_nano_takes_half_a_second(nano):
    reply = nano.chat("What is 58 * 7?")
    tokens = [*reply.prompt_tokens, *reply.ids]
    counterfactuals(nano, tokens, len(tokens) - 3)
    times = []
    for position in range(len(tokens) - 8, len(tokens) - 3):
        began = time.perf_counter()
        counterfactuals(nano, tokens, position)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.5


@pytest.mark.parametrize("against", [None, 7])
def test_the_parts_of_a_logit_add_up(lab, against):
    for position in (0, SEQ - 1):
        found = attribution(lab, TOKENS, position, 99, against)
        logits = lab.logits(TOKENS[: position + 1], last=1)[0]
        expected = float(logits[99] - (0 if against is None else logits[against]))
        assert found.logit == pytest.approx(expected, abs=1e-4)
        assert found.total == pytest.approx(expected, abs=1e-4)
        assert found.heads.shape == (2, lab.config.num_attention_heads)


def test_commitment_equals_a_new_run_of_the_prefix(nano):
    reply = nano.chat("What is 58 * 7?")
    steps = commitment(nano, reply)
    assert [step.kept for step in steps] == sorted({step.kept for step in steps})
    assert steps[0].thought == ""
    assert steps[-1].thought == reply.analysis
    assert all(a.thought.endswith("\n") for a in steps[1:-1])
    assert steps[-1].answer == reply.final == "406"
    for step in steps:
        header = final_header(nano.tokenizer, inside_message=step.kept > 0)
        before = [*reply.prompt_tokens, *reply.ids[: step.kept], *header]
        afresh = Batch(ReferenceEngine(nano.model))
        afresh.add([Request(tuple(before), stop=frozenset(nano.stops), max_tokens=9)])
        ids = [token.id for _, token in afresh][:-1]
        assert nano.tokenizer.decode(ids) == step.answer
    written = [token.logprob for token in reply.tokens[-len("406") - 1 :]]
    assert steps[-1].logprob == pytest.approx(sum(written), abs=1e-3)
    assert steps[0].logprob < steps[-1].logprob
    with pytest.raises(LabError, match="no analysis or no final answer"):
        commitment(nano, nano.chat("What is 58 * 7?", effort="low"))


def test_the_effort_lens_counts_and_compares(nano):
    lens = effort_lens(nano, "What is 58 * 7?")
    assert [lens.replies[effort].final for effort in ("medium", "high")] == ["406", "406"]
    for effort, reply in lens.replies.items():
        assert reply.ids == nano.chat("What is 58 * 7?", effort=effort).ids
        assert lens.tokens[effort].total() == len(reply.ids)
    assert lens.tokens["low"]["analysis"] == 0 < lens.tokens["medium"]["analysis"]
    assert len(lens.divergence) == 3
    for pair, bits in lens.divergence.items():
        assert bits.shape == lens.by_chance[pair].shape == (4,)
        assert ((bits > 0) & (bits < 1)).all()


def test_divergence_of_shares():
    p, q = np.array([[0.5, 0.5, 0], [1, 0, 0]]), np.array([[0.5, 0.5, 0], [0, 0, 1]])
    assert jensen_shannon(p, q).tolist() == [0, 1]
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), (2, 3))
    ours = jensen_shannon(p, q)

    def entropy(x):
        return -(x * np.log2(x)).sum(-1)

    expected = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    np.testing.assert_allclose(ours, expected)


def test_mistakes_are_one_sentence(lab):
    for call, message in (
        (
            lambda: counterfactuals(lab, TOKENS, SEQ),
            f"position {SEQ} is out of range; the sequence has positions 0 to",
        ),
        (lambda: counterfactuals(lab, TOKENS, SEQ - 1), "no token follows position 39"),
        (lambda: counterfactuals(lab, TOKENS, 3, target=999), "the target has id 999"),
        (lambda: counterfactuals(lab, [], 0), "empty"),
        (lambda: attribution(lab, TOKENS, -1, 3), "position -1 is out of range"),
        (lambda: attribution(lab, TOKENS, 1, 999), "the pair has id 999"),
    ):
        with pytest.raises(LabError, match=message):
            call()
