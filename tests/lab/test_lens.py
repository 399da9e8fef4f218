"""The logit lens against the last norm and the unembedding, computed in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from oss_lab.analysis import lens as module
from oss_lab.analysis.lens import lens
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AblateHead
from oss_lab.lab import Lab

SEQ = 40  # five windows of the tiny model
TOKENS = list(range(SEQ))
FIELDS = ("top_ids", "top_logprobs", "rank", "logprob", "entropy", "divergence")


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def lens_in_float64(lab, tokens):
    """Log-probabilities [layer position vocab] in float64, from the residual streams alone."""
    trace = lab.trace(tokens, ["resid.post"])
    scale = lab.model.norm.scale.double().numpy()
    rows = lab.model.unembedding.weight.double().numpy()
    x = np.stack([x.double().numpy() for x in trace.tensors.values()])
    normed = x / np.sqrt((x * x).mean(-1, keepdims=True) + lab.model.norm.eps) * scale
    logits = normed @ rows.T
    largest = logits.max(-1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(-1, keepdims=True))


@pytest.mark.parametrize("target", [None, 99])
def test_every_layer_equals_norm_and_unembedding_in_float64(lab, target):
    found = lens(lab, TOKENS, target=target, top=3)
    kept = SEQ - (target is None)
    assert found.positions == tuple(range(kept))
    assert found.targets == (tuple(TOKENS[1:]) if target is None else (target,) * SEQ)
    plain = lens_in_float64(lab, TOKENS)[:, :kept]
    for layer, position in np.ndindex(plain.shape[:2]):
        row, wanted = plain[layer, position], found.targets[position]
        order = np.argsort(-row)
        assert found.top_ids[layer, position].tolist() == order[:3].tolist()
        assert found.rank[layer, position] == order.tolist().index(wanted)
        np.testing.assert_allclose(
            found.top_logprobs[layer, position], row[order[:3]], atol=1e-4, rtol=0
        )
        own = plain[-1, position]
        for actual, expected in (
            (found.logprob, row[wanted]),
            (found.entropy, -(np.exp(row) * row).sum()),
            (found.divergence, (np.exp(own) * (own - row)).sum()),
        ):
            assert float(actual[layer, position]) == pytest.approx(expected, abs=1e-4)
    assert float(found.divergence[0].min()) > 0.01


@pytest.mark.parametrize("tokens", [TOKENS, [1]])
def test_the_last_layer_is_the_models_own_prediction(lab, tokens):
    found = lens(lab, tokens, target=7)
    own = lab.logits(tokens).log_softmax(-1)
    torch.testing.assert_close(found.logprob[-1], own[:, 7], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.top_ids[-1], own.topk(5).indices)
    torch.testing.assert_close(found.top_logprobs[-1], own.topk(5).values, atol=1e-5, rtol=1e-5)
    assert float(found.divergence[-1].abs().max()) < 1e-6


def test_selected_positions_and_chunks_equal_rows_of_the_full_lens(lab, monkeypatch):
    whole = lens(lab, TOKENS)
    monkeypatch.setattr(module, "ROWS", 7)
    pieces = lens(lab, TOKENS)
    some = lens(lab, TOKENS, [3, 30, 31])
    for name in FIELDS:
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name))
        torch.testing.assert_close(getattr(some, name), getattr(whole, name)[:, [3, 30, 31]])


def test_active_interventions_are_seen(lab):
    plain = lens(lab, TOKENS)
    with lab.intervene(AblateHead(layer=1, head=0)):
        changed = lens(lab, TOKENS)
        own = lab.logits(TOKENS).log_softmax(-1)
    assert torch.equal(changed.logprob[0], plain.logprob[0])
    expected = own[torch.arange(SEQ - 1), torch.tensor(TOKENS[1:])]
    torch.testing.assert_close(changed.logprob[1], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(changed.logprob[1], plain.logprob[1])


def test_nano_reaches_its_answer_over_the_layers(nano):
    reply = nano.chat("What is 58 * 7?")
    first = len(reply.prompt_tokens)
    positions = range(first - 1, first + len(reply.ids) - 1)
    found = lens(nano, reply, positions)
    assert found.targets == reply.ids
    assert found.rank[-1].tolist() == [0] * len(reply.ids)  # the reply was generated greedily
    expected = [token.logprob for token in reply.tokens]
    assert found.logprob[-1].tolist() == pytest.approx(expected, abs=1e-4)
    assert float(found.divergence[0].mean()) > 1 > float(found.divergence[-1].abs().max())


def test_mistakes_are_one_sentence(lab):
    for call, message in (
        (
            lambda: lens(lab, TOKENS, [SEQ]),
            f"position {SEQ} is out of range; the sequence has positions 0 to {SEQ - 1}",
        ),
        (lambda: lens(lab, TOKENS, [SEQ - 1]), "no token follows position 39: pass a target"),
        (lambda: lens(lab, [1]), "no positions to read"),
        (lambda: lens(lab, TOKENS, [0], target=288), "the target has id 288"),
        (lambda: lens(lab, TOKENS, top=0), "top is 0; it must be from 1 to 288"),
        (lambda: lens(lab, []), "empty"),
    ):
        with pytest.raises(LabError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
