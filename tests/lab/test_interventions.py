"""Interventions: each against what it says, computed another way; effects; no silent nothing."""

import math
from dataclasses import replace

import pytest
import torch

from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import GREEDY, pad_left
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import (
    AddVector,
    BiasExpert,
    ForceExpert,
    HideKeys,
    NarrowWindow,
    Patch,
    ScaleExpert,
    ScaleHead,
    ScaleSlot,
    SetSink,
    ShiftSink,
    SwapIn,
    hide_channel,
)
from oss_lab.hooks.interventions.changes import NoEffectWarning
from oss_lab.lab import Lab
from oss_lab.record.token_labels import token_labels

SEQ = 40
TOKENS = range(SEQ)


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def traced(lab, points, *interventions):
    with lab.intervene(*interventions) as effects:
        trace = lab.trace(TOKENS, points)
    return trace, effects


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_head_at_one_position(lab):
    plain = lab.trace(TOKENS, ["attn.z"])
    trace, effects = traced(lab, ["attn.z"], ScaleHead(layer=1, head=3, positions=(7, 9)))
    expected = plain.tensor("attn.z", 1).clone()
    expected[[7, 9], 3] = 0
    assert torch.equal(trace.tensor("attn.z", 1), expected)
    assert torch.equal(trace.tensor("attn.z", 0), plain.tensor("attn.z", 0))
    before = plain.tensor("attn.z", 1)
    assert effects.each[0].size == pytest.approx(float((before - expected).norm() / before.norm()))
    assert "ScaleHead(layer=1, positions=(7, 9), head=3, by=0.0): changed attn.z in 1 of 1" in str(
        effects
    )


@pytest.mark.parametrize("by", [0.0, 0.5, -2.0])
def test_an_expert_s_contribution(lab, by):
    points = ["moe.expert_ids", "moe.expert_weights", "moe.expert_out", "moe.out"]
    plain = lab.trace(TOKENS, points, layers=[0])
    ids, weights, out = (plain.tensor(name, 0) for name in points[:3])
    expert = int(ids[5, 1])
    factor = torch.where(ids == expert, by, 1.0)
    expected = (out * (weights * factor)[..., None]).sum(1)
    trace, _ = traced(lab, points, ScaleExpert(layer=0, expert=expert, by=by))
    assert torch.equal(trace.tensor("moe.expert_ids", 0), ids)
    close(trace.tensor("moe.out", 0), expected)


def test_a_slot(lab):
    points = ["moe.expert_weights", "moe.expert_out", "moe.out"]
    plain = lab.trace(TOKENS, points)
    weights = plain.tensor("moe.expert_weights", 0) * torch.tensor([1.0, 0.0])
    expected = (plain.tensor("moe.expert_out", 0) * weights[..., None]).sum(1)
    close(traced(lab, points, ScaleSlot(layer=0, slot=1))[0].tensor("moe.out", 0), expected)


def test_a_forbidden_expert_is_never_chosen_and_the_rest_are_weighed_anew(lab):
    points = ["moe.router_logits", "moe.expert_ids", "moe.expert_weights"]
    plain = lab.trace(TOKENS, points)
    expert = int(plain.tensor("moe.expert_ids", 0)[5, 0])
    trace, _ = traced(
        lab,
        points,
        BiasExpert(layer=0, expert=expert),
    )
    ids = trace.tensor("moe.expert_ids", 0)
    assert not (ids == expert).any()
    logits = plain.tensor("moe.router_logits", 0).clone()
    logits[:, expert] = -math.inf
    best = logits.topk(ids.shape[1])
    assert torch.equal(ids.long(), best.indices)
    close(trace.tensor("moe.expert_weights", 0), best.values.softmax(-1))


def test_a_forced_expert_has_the_weight_of_its_own_logit(lab):
    points = ["moe.router_logits", "moe.expert_ids", "moe.expert_weights"]
    plain = lab.trace(TOKENS, points)
    ids = plain.tensor("moe.expert_ids", 0).long()
    expert = int(plain.tensor("moe.router_logits", 0)[5].argmin())
    trace, _ = traced(lab, points, ForceExpert(layer=0, expert=expert, slot=1))
    absent = ~(ids == expert).any(-1)
    assert absent[5]
    ids[absent, 1] = expert
    assert torch.equal(trace.tensor("moe.expert_ids", 0).long(), ids)
    logits = plain.tensor("moe.router_logits", 0).gather(-1, ids)
    close(trace.tensor("moe.expert_weights", 0), logits.softmax(-1))


def test_the_next_best_is_swapped_in(lab):
    points = ["moe.router_logits", "moe.expert_ids"]
    trace, _ = traced(lab, points, SwapIn(layer=0, slot=0, positions=(3,)))
    ids = trace.tensor("moe.expert_ids", 0).long()
    best = trace.tensor("moe.router_logits", 0).topk(ids.shape[1] + 1).indices
    assert ids[3].tolist() == [best[3, -1], *best[3, 1:-1]]
    assert torch.equal(ids[4:], best[4:, :-1])


def test_a_removed_sink_takes_nothing(lab):
    points = ["attn.pattern", "attn.sink_mass", "attn.scores"]
    trace, _ = traced(lab, points, SetSink(layer=0, head=2, to=-math.inf))
    mass = trace.tensor("attn.sink_mass", 0)
    assert not mass[:, 2].any()
    assert (mass[:, 1] > 0).all()
    close(trace.tensor("attn.pattern", 0)[:, 2].sum(-1), torch.ones(SEQ))
    every, _ = traced(lab, points, SetSink(to=-math.inf))
    assert not any(every.tensor("attn.sink_mass", layer).any() for layer in range(2))


def test_a_removed_sink_leaves_padded_batches_whole(lab, random_model):
    """Rows of padding see no key; a sink of -inf made them NaN, and with them all real rows."""
    prompts = [list(TOKENS), list(range(5, 25))]
    with lab.intervene(SetSink(to=-math.inf)):
        tokens, padding = pad_left(prompts, lab.model.device)
        cache = KVCache(lab.config, 2, padding=padding)
        batch = lab.model(tokens, cache, last=1, taps=lab.taps())[:, 0]
        alone = torch.cat([lab.logits(prompt, last=1) for prompt in prompts])
        assert lab.trace(TOKENS, ["attn.sink"]).tensor("attn.sink", 0).isfinite().all()
    close(batch, alone)
    # and without a share left: a model whose sinks are -inf says the same
    model = random_model(lab.config)
    for block in model.block:
        block.attn.sinks.fill_(-math.inf)
    close(alone[0], model(torch.tensor(prompts[:1]), last=1)[0, 0])


@pytest.mark.parametrize("keys", [1, 7, 8, SEQ - 1])
def test_a_narrowed_window_is_that_of_a_model_with_it(lab, random_model, keys):
    sliding = replace(
        lab.config, sliding_window=keys, layer_types=("full_attention", "sliding_attention")
    )
    expected = random_model(replace(sliding, layer_types=("sliding_attention",) * 2))(
        torch.tensor([list(TOKENS)])
    )[0]
    wide = Lab(random_model(sliding), lab.encoding, GREEDY)
    with wide.intervene(NarrowWindow(layer=0, keys=keys)):
        close(wide.logits(TOKENS), expected)
        cache = KVCache(wide.config)
        taps = wide.taps()
        stepwise = [wide.model(torch.tensor([[t]]), cache, taps=taps)[0] for t in TOKENS]
        close(torch.cat(stepwise), expected)


def test_a_shifted_sink_weighs_more(lab):
    points = ["attn.sink_mass"]
    plain = lab.trace(TOKENS, points).tensor("attn.sink_mass", 0)[:, 1]
    trace, _ = traced(lab, points, ShiftSink(layer=0, head=1, by=math.log(2)))
    close(trace.tensor("attn.sink_mass", 0)[:, 1], 2 * plain / (1 + plain))


def test_hidden_keys_get_no_attention_from_later_queries(lab):
    points = ["attn.pattern", "attn.sink_mass"]
    plain = lab.trace(TOKENS, points)
    hide = HideKeys(keys=(30, 31), first_query=33)
    trace, _ = traced(lab, points, hide)
    for layer in range(2):
        pattern, mass = (trace.tensor(name, layer) for name in points)
        assert not pattern[33:, :, 30:32].any()
        close(pattern.sum(-1) + mass, torch.ones(SEQ, mass.shape[1]))
    assert torch.equal(trace.tensor("attn.pattern", 0)[:33], plain.tensor("attn.pattern", 0)[:33])
    # and key by key, so with the cache of a generation
    with lab.intervene(hide):
        stepwise = torch.stack([lab.logits(range(n), last=1)[0] for n in range(30, SEQ + 1)])
        close(lab.logits(TOKENS)[29:], stepwise)


def test_a_hidden_channel_is_that_of_the_labels(lab, tiny):
    text = (
        "<|start|>assistant<|channel|>analysis<|message|>xy<|end|>"
        "<|start|>assistant<|channel|>final<|message|>z<|return|>"
    )
    tokens = tiny.encode(text, allowed_special="all")
    hide = hide_channel(token_labels(tiny, tokens), "analysis", layer=1)
    end = tokens.index(tiny.encode("<|end|>", allowed_special="all")[0])
    assert hide == HideKeys(layer=1, keys=tuple(range(end + 1)), first_query=end + 1)


def test_a_vector_is_added(lab):
    vector = torch.randn(lab.config.hidden_size, generator=torch.Generator().manual_seed(0))
    plain = lab.trace(TOKENS, ["resid.mid"])
    add = AddVector(point="resid.mid", layer=1, vector=vector, by=3, positions=(4,))
    trace, _ = traced(lab, ["resid.mid"], add)
    expected = plain.tensor("resid.mid", 1).clone()
    expected[4] += 3 * vector
    close(trace.tensor("resid.mid", 1), expected)


@pytest.mark.parametrize("point", ["resid.post", "attn.z", "attn.k_rot", "moe.expert_out"])
def test_a_patched_whole_sequence_goes_on_as_the_other_run(lab, point):
    """All positions of the last layer's stream from another run give that run's logits."""
    other = range(100, 100 + SEQ)
    source = lab.trace(other, [point, "out.logits"])
    onto = {position: position for position in range(SEQ)}
    patch = Patch.from_trace(source, point, 1, onto)
    trace, _ = traced(lab, [point, "out.logits"], patch)
    assert torch.equal(trace.tensor(point, 1), source.tensor(point, 1))
    if point == "resid.post":
        close(trace.tensor("out.logits"), source.tensor("out.logits"))
    some = Patch.from_trace(source, point, 0, {3: 8})
    trace, _ = traced(lab, [point], some)
    assert torch.equal(trace.tensor(point, 0)[8], source.tensor(point, 0)[3])
    assert torch.equal(trace.tensor(point, 0)[7], lab.trace(TOKENS, [point]).tensor(point, 0)[7])


def test_what_was_changed_is_written_in_the_trace_and_order_counts(lab):
    scale, add = ScaleSlot(slot=0, by=0.5), AddVector(point="embed", vector=torch.ones(64))
    trace, effects = traced(lab, ["embed"], scale, add)
    assert trace.origin.interventions == (
        "ScaleSlot(slot=0, by=0.5)",
        str(add),
    )
    assert [effect.asked for effect in effects.each] == [2, 1]
    assert lab.trace(TOKENS, ["embed"]).origin.interventions == ()


def test_nested_ones_both_hold_and_end(lab):
    plain = lab.logits(TOKENS)
    with lab.intervene(ScaleHead(layer=0, head=0)):
        outer = lab.logits(TOKENS)
        with lab.intervene(ScaleHead(layer=0, head=1)):
            both = lab.logits(TOKENS)
        assert torch.equal(lab.logits(TOKENS), outer)
    assert torch.equal(lab.logits(TOKENS), plain)
    assert not torch.equal(both, outer)
    with lab.intervene(ScaleHead(layer=0, head=0), ScaleHead(layer=0, head=1)):
        assert torch.equal(lab.logits(TOKENS), both)


def test_generation_is_changed_from_its_first_token_on(lab):
    changed = ScaleHead(head=1, by=-3.0)
    with lab.intervene(changed):
        reply = lab.chat("a", max_tokens=6)
        logits = lab.logits([*reply.prompt_tokens, *reply.ids])
    first = len(reply.prompt_tokens) - 1
    chosen = [int(row.argmax()) for row in logits[first:-1]]
    assert chosen == list(reply.ids)


def test_nothing_changed_is_said(lab):
    with (
        pytest.warns(
            NoEffectWarning, match=r"ScaleHead\(layer=1, head=0, by=1\.0\): changed nothing"
        ),
        lab.intervene(ScaleHead(layer=1, head=0, by=1.0)) as effects,
    ):
        lab.logits(TOKENS)
    assert effects.each[0].size == 0
    with pytest.warns(NoEffectWarning, match="0 times asked"), lab.intervene(SwapIn(slot=0)):
        pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaleHead(layer=2, head=0), "no layer 2; they are 0 to 1"),
        (lambda: ScaleHead(head=99), "no head 99"),
        (lambda: ScaleExpert(expert=-1), "no expert -1"),
        (lambda: SwapIn(slot=2), "no slot 2"),
        (lambda: SetSink(to=0.0, positions=(1,)), "it holds for every token; leave positions out"),
        (lambda: HideKeys(keys=(0,), first_query=1, positions=(2,)), "leave positions out"),
        (lambda: NarrowWindow(keys=0), "give 1 or more keys"),
        (lambda: AddVector(point="moe.margin", vector=torch.ones(1)), "it follows from moe.router"),
        (lambda: AddVector(point="moe", vector=torch.ones(1)), "no point 'moe'"),
        (lambda: AddVector(point="embed", vector=torch.ones(3)), r"is \[3\] and must be \[64\]"),
        (lambda: AddVector(point="attn.q", vector=torch.ones(64)), r"points \[seq hidden\] only"),
        (lambda: AddVector(point="embed", layer=0, vector=torch.ones(64)), "embed is in no layer"),
        (lambda: Patch(point="embed", values=torch.ones(2, 1)), "a position for each of the 2"),
        (
            lambda: Patch(point="embed", values=torch.ones(1, 3), positions=(0,)),
            r"value is \[3\] and must be \[64\]",
        ),
        (
            lambda: Patch(point="attn.pattern", values=torch.ones(1, 1), positions=(0,)),
            "only points with a value a token",
        ),
    ],
)
def test_mistakes_are_one_sentence(lab, make, message):
    with pytest.raises(LabError, match=message), lab.intervene(make()):
        pass


def test_positions_need_one_sequence(lab):
    prompts = [lab.conversation("a"), lab.conversation("bb")]
    with lab.intervene(ScaleHead(head=0)):
        assert len(lab.replies(prompts, max_tokens=2)) == 2
    with (
        pytest.raises(LabError, match="needs one sequence, and this batch has 2"),
        lab.intervene(ScaleHead(head=0, positions=(1,))),
    ):
        lab.replies(prompts, max_tokens=2)


@pytest.mark.parametrize("point", ["out.norm", "out.logits"])
def test_positions_are_the_same_where_only_the_last_ones_are_unembedded(lab, point):
    last = len(TOKENS) - 1
    row = torch.ones(1, lab.config.hidden_size if point == "out.norm" else lab.config.vocab_size)
    with lab.intervene(Patch(point=point, values=row, positions=(last,))):
        whole, end = lab.logits(TOKENS), lab.logits(TOKENS, last=1)
    torch.testing.assert_close(whole[-1:], end)
    torch.testing.assert_close(whole[:-1], lab.logits(TOKENS)[:-1])
    assert (end - lab.logits(TOKENS, last=1)).abs().max() > 0.01


def test_a_swap_never_chooses_an_expert_twice(lab):
    with lab.intervene(SwapIn(layer=1, slot=0), SwapIn(layer=1, slot=1)):
        trace = lab.trace(TOKENS, ["moe.expert_ids", "moe.router_logits"])
    chosen = trace.tensor("moe.expert_ids", 1).long()
    falling = trace.tensor("moe.router_logits", 1).argsort(dim=-1, descending=True)
    assert all(len(set(row)) == len(row) for row in chosen.tolist())
    assert torch.equal(chosen[:, 0], falling[:, 2])  # 2 of 4 experts were chosen
    assert torch.equal(chosen[:, 1], falling[:, 0])  # left out by the first swap, so the best again


def test_removed_by_shifting_a_sink_leaves_padded_batches_whole(lab):
    prompts = [lab.conversation("a"), lab.conversation("a longer question")]
    with lab.intervene(ShiftSink(by=-math.inf)) as effects:
        together = [reply.ids for reply in lab.replies(prompts, max_tokens=6)]
        alone = [lab.replies([prompt], max_tokens=6)[0].ids for prompt in prompts]
    assert together == alone
    assert "excluding" in str(effects)


def test_other_values_are_other_interventions(lab):
    vector = torch.ones(64)
    one, other = (AddVector(point="embed", vector=each) for each in (vector, -vector))
    assert str(one) != str(other)
    assert str(one) == str(AddVector(point="embed", vector=vector.clone()))


def test_a_forbidden_expert_leaves_the_entropy_a_number(lab):
    with lab.intervene(BiasExpert(layer=1, expert=2)):
        trace = lab.trace(TOKENS, ["moe.entropy", "moe.router_logits"])
    rest = trace.tensor("moe.router_logits", 1)[:, [0, 1, 3]].log_softmax(-1)
    expected = -(rest.exp() * rest).sum(-1)
    torch.testing.assert_close(trace.tensor("moe.entropy", 1), expected)


def test_interventions_as_an_argument_hold_for_that_reply_only(lab):
    silence = ScaleSlot(slot=0)
    plain = lab.chat("a", max_tokens=6)
    with lab.intervene(silence):
        expected = lab.chat("a", max_tokens=6)
    changed = lab.chat("a", max_tokens=6, points=["moe.expert_ids"], interventions=[silence])
    assert changed.ids == expected.ids != plain.ids
    assert changed.trace.origin.interventions == (str(silence),)
    assert lab.chat("a", max_tokens=6).ids == plain.ids
