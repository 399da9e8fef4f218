"""The effects of an intervention inside the model, each computed in another way."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from oss_lab.analysis.forwards import run_forward
from oss_lab.engine.cache import KVCache
from oss_lab.engine.sampling import GREEDY
from oss_lab.hooks.interventions import (
    AblateHead,
    BanExpert,
    ForceExpert,
    HideKeys,
    NarrowWindow,
    Patch,
    RemoveSink,
    ScaleExpert,
    ShiftSink,
    UseNextBest,
    hide_channel,
)
from oss_lab.lab import Lab
from oss_lab.record.token_labels import label_token_ids

SEQ = 40
TOKENS = range(SEQ)
EVERYWHERE: dict[str, Any] = {"layer": "all", "head": "all"}


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def trace_under(lab, points, *interventions):
    with lab.intervene(*interventions) as effects:
        trace = lab.trace(TOKENS, points)
    return trace, effects


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_head_at_one_position(lab):
    plain = lab.trace(TOKENS, ["attn.z"])
    trace, effects = trace_under(lab, ["attn.z"], AblateHead(layer=1, head=3, positions=(7, 9)))
    before = plain["attn.z", 1]
    expected = before.clone()
    expected[[7, 9], 3] = 0
    assert torch.equal(trace["attn.z", 1], expected)
    assert torch.equal(trace["attn.z", 0], plain["attn.z", 0])
    size = float((before - expected).norm() / before.norm())
    assert effects.each[0].size == pytest.approx(size)
    assert str(effects) == (
        "AblateHead(layer=1, positions=7,9, head=3): changed attn.z in 1 of 1 calls,"
        f" by {size:.1%} of its norm"
    )


@pytest.mark.parametrize("by", [0.0, 0.5, -2.0])
def test_the_contribution_of_an_expert(lab, by):
    points = ["moe.expert_ids", "moe.expert_weights", "moe.expert_out", "moe.out"]
    plain = lab.trace(TOKENS, points, layers=[0])
    ids, weights, out = (plain.tensor(name, 0) for name in points[:3])
    expert = int(ids[5, 1])
    factor = torch.where(ids == expert, by, 1.0)
    expected = (out * (weights * factor)[..., None]).sum(1)
    trace, _ = trace_under(lab, points, ScaleExpert(layer=0, expert=expert, by=by))
    assert torch.equal(trace.tensor("moe.expert_ids", 0), ids)
    close(trace.tensor("moe.out", 0), expected)


def test_a_banned_expert_is_never_chosen_and_the_rest_share_its_weight(lab):
    points = ["moe.router_logits", "moe.expert_ids", "moe.expert_weights", "moe.entropy"]
    plain = lab.trace(TOKENS, points)
    expert = int(plain.tensor("moe.expert_ids", 0)[5, 0])
    trace, _ = trace_under(lab, points, BanExpert(layer=0, expert=expert))
    ids = trace.tensor("moe.expert_ids", 0)
    assert not (ids == expert).any()
    logits = plain.tensor("moe.router_logits", 0)
    logits[:, expert] = -math.inf
    best = logits.topk(ids.shape[1])
    assert torch.equal(ids.long(), best.indices)
    close(trace.tensor("moe.expert_weights", 0), best.values.softmax(-1))
    rest = logits[:, [each for each in range(4) if each != expert]].log_softmax(-1)
    close(trace.tensor("moe.entropy", 0), -(rest.exp() * rest).sum(-1))


def test_a_forced_expert_has_the_weight_of_its_own_logit(lab):
    points = ["moe.router_logits", "moe.expert_ids", "moe.expert_weights"]
    plain = lab.trace(TOKENS, points)
    ids = plain.tensor("moe.expert_ids", 0).long()
    expert = int(plain.tensor("moe.router_logits", 0)[5].argmin())
    trace, _ = trace_under(lab, points, ForceExpert(layer=0, expert=expert, slot=1))
    absent = ~(ids == expert).any(-1)
    assert absent[5]
    ids[absent, 1] = expert
    assert torch.equal(trace.tensor("moe.expert_ids", 0).long(), ids)
    logits = plain.tensor("moe.router_logits", 0).gather(-1, ids)
    close(trace.tensor("moe.expert_weights", 0), logits.softmax(-1))


def test_the_next_best_never_chooses_an_expert_twice(lab):
    with lab.intervene(UseNextBest(layer=1, slot=0), UseNextBest(layer=1, slot=1)):
        trace = lab.trace(TOKENS, ["moe.expert_ids", "moe.router_logits"])
    chosen = trace.tensor("moe.expert_ids", 1).long()
    falling = trace.tensor("moe.router_logits", 1).argsort(dim=-1, descending=True)
    assert torch.equal(chosen[:, 0], falling[:, 2])  # 2 of 4 experts were chosen
    # The first change made the best one available again.
    assert torch.equal(chosen[:, 1], falling[:, 0])


def test_a_removed_sink_gets_no_attention(lab):
    points = ["attn.pattern", "attn.sink_mass", "attn.scores"]
    trace, _ = trace_under(lab, points, RemoveSink(layer=0, head=2))
    mass = trace.tensor("attn.sink_mass", 0)
    assert not mass[:, 2].any()
    assert (mass[:, 1] > 0).all()
    close(trace.tensor("attn.pattern", 0)[:, 2].sum(-1), torch.ones(SEQ))
    every, _ = trace_under(lab, points, RemoveSink(**EVERYWHERE))
    assert not any(every.tensor("attn.sink_mass", layer).any() for layer in range(2))


@pytest.mark.parametrize(
    "remove", [RemoveSink(**EVERYWHERE), ShiftSink(**EVERYWHERE, by=-math.inf)]
)
def test_removed_sinks_do_not_break_padded_batches(lab, random_model, remove):
    """Padding rows see no key. A sink of -inf used to make them NaN, and with them all real
    rows.
    """
    prompts = [list(TOKENS), list(range(5, 25))]
    with lab.intervene(remove) as effects:
        batch = lab.logits_batch(prompts, last=1)
        alone = [lab.logits(prompt, last=1) for prompt in prompts]
        assert lab.trace(TOKENS, ["attn.sink"]).tensor("attn.sink", 0).isfinite().all()
    close(batch, alone)
    assert ", removed " in str(effects)
    # nothing is left for the sink: a model with sinks of -inf gives the same
    model = random_model(lab.config)
    for block in model.block:
        block.attn.sinks.fill_(-math.inf)
    close(alone[0], model(torch.tensor(prompts[:1]), last=1)[0])


@pytest.mark.parametrize("keys", [1, 7, 8, SEQ - 1])
def test_a_narrowed_window_equals_a_model_with_that_window(lab, random_model, keys):
    sliding = replace(
        lab.config, sliding_window=keys, layer_types=("full_attention", "sliding_attention")
    )
    expected = random_model(replace(sliding, layer_types=("sliding_attention",) * 2))(
        torch.tensor([list(TOKENS)])
    )[0]
    wide = Lab(random_model(sliding), lab.tokenizer, GREEDY)
    with wide.intervene(NarrowWindow(layer=0, keys=keys)):
        close(wide.logits(TOKENS), expected)
        cache = KVCache(wide.config)
        stepwise = [run_forward(wide, torch.tensor([[token]]), cache)[0] for token in TOKENS]
        close(torch.cat(stepwise), expected)


def test_a_shifted_sink_gets_more_attention(lab):
    points = ["attn.sink_mass"]
    plain = lab.trace(TOKENS, points).tensor("attn.sink_mass", 0)[:, 1]
    trace, _ = trace_under(lab, points, ShiftSink(layer=0, head=1, by=math.log(2)))
    close(trace.tensor("attn.sink_mass", 0)[:, 1], 2 * plain / (1 + plain))


def test_hidden_keys_get_no_attention_from_later_queries(lab):
    points = ["attn.pattern", "attn.sink_mass"]
    plain = lab.trace(TOKENS, points)
    hide = HideKeys(layer="all", keys=(30, 31), first_query=33)
    trace, _ = trace_under(lab, points, hide)
    for layer in range(2):
        pattern, mass = (trace.tensor(name, layer) for name in points)
        assert not pattern[33:, :, 30:32].any()
        close(pattern.sum(-1) + mass, torch.ones(SEQ, mass.shape[1]))
    assert torch.equal(trace.tensor("attn.pattern", 0)[:33], plain.tensor("attn.pattern", 0)[:33])
    # also token by token, with the cache, as in generation
    with lab.intervene(hide):
        stepwise = torch.stack([lab.logits(range(n), last=1)[0] for n in range(30, SEQ + 1)])
        close(lab.logits(TOKENS)[29:], stepwise)


def test_a_hidden_channel_covers_the_labeled_tokens(lab, tiny):
    text = (
        "<|start|>assistant<|channel|>analysis<|message|>xy<|end|>"
        "<|start|>assistant<|channel|>final<|message|>z<|return|>"
    )
    tokens = tiny.encode(text, allowed_special="all")
    hide = hide_channel(label_token_ids(tiny, tokens), "analysis", layer=1)
    end = tokens.index(tiny.encode("<|end|>", allowed_special="all")[0])
    assert hide == HideKeys(layer=1, keys=range(end + 1), first_query=end + 1)


@pytest.mark.parametrize("point", ["resid.post", "attn.z", "attn.k_rot", "moe.expert_out"])
def test_patching_a_full_sequence_gives_the_other_run(lab, point):
    """All positions of the last layer's residual stream from another run give that run's logits."""
    other = range(100, 100 + SEQ)
    source = lab.trace(other, [point, "out.logits"])
    onto = {position: position for position in range(SEQ)}
    patch = Patch.from_trace(source, point, 1, onto)
    trace, _ = trace_under(lab, [point, "out.logits"], patch)
    assert torch.equal(trace.tensor(point, 1), source.tensor(point, 1))
    if point == "resid.post":
        close(trace.tensor("out.logits"), source.tensor("out.logits"))
    some = Patch.from_trace(source, point, 0, {3: 8})
    trace, _ = trace_under(lab, [point], some)
    assert torch.equal(trace.tensor(point, 0)[8], source.tensor(point, 0)[3])
    assert torch.equal(trace.tensor(point, 0)[7], lab.trace(TOKENS, [point]).tensor(point, 0)[7])


@pytest.mark.parametrize("point", ["out.norm", "out.logits"])
def test_positions_do_not_depend_on_how_many_are_unembedded(lab, point):
    last = len(TOKENS) - 1
    row = torch.ones(1, lab.config.hidden_size if point == "out.norm" else lab.config.vocab_size)
    with lab.intervene(Patch(point=point, values=row, positions=(last,))):
        whole, end = lab.logits(TOKENS), lab.logits(TOKENS, last=1)
    torch.testing.assert_close(whole[-1:], end)
    torch.testing.assert_close(whole[:-1], lab.logits(TOKENS)[:-1])
    assert (end - lab.logits(TOKENS, last=1)).abs().max() > 0.01
