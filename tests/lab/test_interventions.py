"""Interventions through a lab: when they are active, batches, streams, traces and hooks."""

from collections import deque
from dataclasses import replace
from itertools import zip_longest
from threading import Thread

import pytest
import torch

from oss_lab.analysis.forwards import run_forward
from oss_lab.engine.cache import KVCache
from oss_lab.engine.sampling import GREEDY
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import (
    AblateHead,
    AblateSlot,
    AddVector,
    HideKeys,
    Hook,
    Patch,
    ScaleHead,
    ScaleSlot,
    UseNextBest,
)
from oss_lab.hooks.interventions.changes import NoEffectWarning
from oss_lab.lab import Lab
from oss_lab.record.token_labels import label_token_ids

SEQ = 40
TOKENS = range(SEQ)
QUESTIONS = ["a", "a longer question", "bb"]


@pytest.fixture(scope="module")
def lab(random_model, tiny_config, tiny):
    return Lab(random_model(replace(tiny_config, vocab_size=288)), tiny, GREEDY)


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_changes_are_recorded_in_the_trace(lab):
    scale = ScaleSlot(layer="all", slot=0, by=0.5)
    add = AddVector(point="embed", vector=torch.ones(64))
    with lab.intervene(scale, add) as effects:
        trace = lab.trace(TOKENS, ["embed"])
    assert trace.origin.interventions == ("ScaleSlot(layer=all, slot=0, by=0.5)", str(add))
    assert [effect.calls for effect in effects.each] == [2, 1]
    assert lab.trace(TOKENS, ["embed"]).origin.interventions == ()

    def negate(x, here):
        return -x

    with lab.intervene(scale):
        hook = Hook("attn.z", negate, layer=1)
        trace = lab.trace(TOKENS, ["embed"], interventions=[hook])
    assert trace.origin.interventions == (str(scale), "Hook(attn.z, layer=1, fn=negate)")


def test_they_are_applied_in_order_the_outermost_first(lab):
    add = AddVector(point="embed", vector=torch.ones(64))
    double = Hook("embed", lambda x, here: x * 2)
    plain = lab.trace(TOKENS, ["embed"])["embed", None]
    with lab.intervene(add):
        found = lab.trace(TOKENS, ["embed"], interventions=[double])["embed", None]
        with lab.intervene(double):
            assert torch.equal(lab.trace(TOKENS, ["embed"])["embed", None], found)
    assert torch.equal(found, (plain + 1) * 2)
    with lab.intervene(double, add):
        assert torch.equal(lab.trace(TOKENS, ["embed"])["embed", None], plain * 2 + 1)


def test_nested_interventions_are_both_active_and_both_end(lab):
    one, other = (AblateHead(layer=0, head=head) for head in (0, 1))
    plain = lab.logits(TOKENS)
    with lab.intervene(one):
        outer = lab.logits(TOKENS)
        with lab.intervene(other):
            both = lab.logits(TOKENS)
        assert torch.equal(lab.logits(TOKENS), outer)
    assert torch.equal(lab.logits(TOKENS), plain)
    assert not torch.equal(both, outer)
    with lab.intervene(one, other):
        assert torch.equal(lab.logits(TOKENS), both)


def test_blocks_may_be_closed_in_any_order(lab):
    one, other = (AblateHead(layer=0, head=head) for head in (0, 1))
    first, second = lab.intervene(one), lab.intervene(other)
    first.__enter__()
    second.__enter__()
    lab.logits(TOKENS)
    first.__exit__(None, None, None)
    assert lab.interventions == (other,)
    second.__exit__(None, None, None)
    assert lab.interventions == ()


def test_other_threads_are_not_affected(lab):
    seen = []
    thread = Thread(target=lambda: seen.append(lab.interventions))
    with lab.intervene(AblateHead(layer=0, head=0)):
        thread.start()
        thread.join()
        lab.logits(TOKENS)
    assert seen == [()]


def test_generation_is_changed_from_its_first_token_on(lab):
    with lab.intervene(ScaleHead(layer="all", head=1, by=-3.0)):
        reply = lab.chat("a", max_tokens=6)
        logits = lab.logits(reply)
    first = len(reply.prompt_tokens) - 1
    chosen = [int(row.argmax()) for row in logits[first:-1]]
    assert chosen == list(reply.ids)


def test_interventions_as_an_argument_are_those_of_that_reply_only(lab):
    ablate = AblateSlot(layer="all", slot=0)
    plain = lab.chat("a", max_tokens=6)
    with lab.intervene(ablate):
        expected = lab.chat("a", max_tokens=6)
    changed = lab.chat("a", max_tokens=6, points=["moe.expert_ids"], interventions=[ablate])
    assert changed.ids == expected.ids != plain.ids
    assert changed.trace.origin.interventions == (str(ablate),)
    assert lab.chat("a", max_tokens=6).ids == plain.ids
    raw = {"raw": True, "interventions": [ablate]}
    assert torch.equal(lab.logits("abc", **raw), lab.logits_batch(["abc"], **raw)[0])
    assert not torch.equal(lab.logits("abc", **raw), lab.logits("abc", raw=True))


def test_a_stream_keeps_the_interventions_it_was_created_under(lab):
    ablate = AblateSlot(layer="all", slot=0)
    plain, changed = (lab.chat("a", max_tokens=6, interventions=i) for i in ([], [ablate]))
    with lab.intervene(ablate) as effects:
        inside = lab.stream("a", max_tokens=6)
        lab.logits(TOKENS)
    (before,) = [effect.calls for effect in effects.each]
    outside = lab.stream("a", max_tokens=6)
    with lab.intervene(AblateHead(layer="all", head="all")):
        lab.logits(TOKENS)
        deque(zip_longest(inside, outside), maxlen=0)  # alternating between the two streams
    assert inside.reply.ids == changed.ids
    assert outside.reply.ids == plain.ids
    assert effects.each[0].calls == before + 2 * 6  # one forward pass of two layers per token


def test_no_effect_causes_a_warning(lab):
    with (
        pytest.warns(
            NoEffectWarning, match=r"ScaleHead\(layer=1, head=0, by=1\.0\): changed nothing"
        ),
        lab.intervene(ScaleHead(layer=1, head=0, by=1.0)) as effects,
    ):
        lab.logits(TOKENS)
    assert effects.each[0].size == 0
    with (
        pytest.warns(NoEffectWarning, match="called 0 times"),
        lab.intervene(UseNextBest(layer=0, slot=0)),
    ):
        pass


def test_mistakes_are_one_sentence(lab):
    beyond = [AblateHead(layer=2, head=0)]
    for call, message in (
        (lambda: lab.intervene(beyond[0]), "layer 2 is out of range; this model has layers 0 to 1"),
        (lambda: lab.chat("a", interventions=beyond), "layer 2 is out of range"),
        (lambda: lab.chat_batch(["a"], interventions=beyond), "layer 2 is out of range"),
        (lambda: lab.trace(TOKENS, interventions=beyond), "layer 2 is out of range"),
        (lambda: lab.logits(TOKENS, interventions=beyond), "layer 2 is out of range"),
        (lambda: lab.intervene(0), r"such as `AblateHead\(layer=0, head=3\)`, got 0"),
        (lambda: lab.intervene(beyond), "expected an intervention"),
        (lambda: lab.trace(TOKENS, interventions=[AblateHead]), "expected an intervention"),
    ):
        with pytest.raises(LabError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
    assert lab.interventions == ()


@pytest.mark.parametrize(
    "change",
    [
        AblateHead(layer="all", head="all", positions=range(70, 90)),
        HideKeys(layer="all", keys=range(60, 80), first_query=75),
        UseNextBest(layer="all", slot=0, positions=range(75, 85)),
        Patch(point="embed", positions=[70, 85], values=torch.ones(2, 64)),
        Hook("resid.mid", lambda x, here: x * -2, layer=0, positions=[75, 90]),
    ],
    ids=str,
)
def test_positions_in_a_batch_count_within_each_row(lab, change):
    """The positions are inside the prompts of long rows and inside the generated part of short
    ones."""
    options = {"max_tokens": 12, "interventions": [change]}
    batch = lab.chat_batch(QUESTIONS, **options)
    ends = [(len(reply.prompt_tokens), len(reply.ids)) for reply in batch]
    assert len({prompt for prompt, _ in ends}) == 3
    for question, reply in zip(QUESTIONS, batch, strict=True):
        alone, plain = lab.chat(question, **options), lab.chat(question, max_tokens=12)
        assert reply.ids == alone.ids
        assert reply.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert reply.logprobs != pytest.approx(plain.logprobs, abs=1e-3)
    sequences = [[*reply.prompt_tokens, *reply.ids] for reply in batch]
    for found, tokens in zip(
        lab.logits_batch(sequences, interventions=[change]), sequences, strict=True
    ):
        close(found, lab.logits(tokens, interventions=[change]))


def test_rows_under_the_same_interventions_are_changed_together(lab, monkeypatch):
    rows, change = [], AblateHead.change

    def count_calls(self, x, at):
        rows.append(len(x))
        return change(self, x, at)

    monkeypatch.setattr(AblateHead, "change", count_calls)
    ablate = {"interventions": [AblateHead(layer=1, head=0)]}
    lab.chat_batch(QUESTIONS, max_tokens=3, **ablate)
    lab.trace_batch(QUESTIONS, ["embed"], **ablate)
    lab.logits_batch(QUESTIONS, **ablate)
    assert rows == [3] * (3 + 1 + 1)


def watch_row(calls, row):
    """What a hook got for one row, by call: positions, ids and whether they were a prompt's."""
    own = [here for here in calls if here.row == row]
    positions = [position for here in own for position in here.positions.tolist()]
    ids = [id for here in own for id in here.token_ids.tolist()]
    return positions, ids, [here.is_prefill for here in own]


def test_a_hook_gets_one_row_at_a_time_with_its_own_positions(lab):
    """The first row leaves the batch early; the others keep their numbers."""
    calls = []

    def watch(x, here):
        assert x.shape == (len(here.positions), 4, 16)
        assert (here.layer, here.point) == (1, "attn.z")
        calls.append(here)

    def end(x, here):
        if here.row == 0 and not here.is_prefill:
            x[:, min(lab.stops)] = 100

    both = [Hook("attn.z", watch, layer=1), Hook("out.logits", end)]
    single = lab.chat(QUESTIONS[1], max_tokens=5, interventions=both)
    ran = [(single, watch_row(calls, 0))]
    calls.clear()
    batch = lab.chat_batch(QUESTIONS, max_tokens=5, interventions=both)
    assert [len(reply.ids) for reply in batch] == [2, 5, 5]
    ran += [(reply, watch_row(calls, row)) for row, reply in enumerate(batch)]
    for reply, (positions, ids, is_prefill) in ran:
        # The last one is never fed back to the model.
        read = [
            *reply.prompt_tokens,
            *reply.ids[:-1],
        ]
        assert positions == list(range(len(read)))
        assert ids == read
        assert is_prefill == [True] + [False] * (len(reply.ids) - 1)
    calls.clear()
    lab.trace(batch[1], ["embed"], interventions=both)
    lab.trace_batch(batch, ["embed"], interventions=both)
    assert [here.row for here in calls] == [0, 0, 1, 2]
    for here, reply in zip(calls, [batch[1], *batch], strict=True):
        assert here.token_ids.tolist() == [*reply.prompt_tokens, *reply.ids]
        assert here.positions.tolist() == list(range(len(here.token_ids)))
        assert here.is_prefill
    plain = lab.chat_batch(QUESTIONS, max_tokens=5, interventions=both[1:])
    assert [reply.tokens for reply in batch] == [reply.tokens for reply in plain]


@pytest.mark.parametrize("layer", [0, 1])  # a sliding layer keeps 8 keys, a full layer all
def test_the_keys_of_a_hook_begin_at_position_0(lab, layer):
    widths = []

    def hide_the_sixth(scores, here):
        widths.append((int(here.positions[-1]), scores.shape[-1]))
        scores[..., 5] = -torch.inf

    hide = Hook("attn.scores", hide_the_sixth, layer=layer)
    sequences = [list(range(9, 16)), list(range(30))]
    for row, logits in zip(
        sequences, lab.logits_batch(sequences, interventions=[hide]), strict=True
    ):
        alone = lab.logits(row, interventions=[HideKeys(layer=layer, keys=[5], first_query=0)])
        close(logits, alone)
    lab.chat("a question", max_tokens=3, interventions=[hide])
    assert all(width == last + 1 for last, width in widths)


def test_a_hook_can_be_limited_to_channels(lab):
    calls = []
    hook = Hook("embed", lambda x, here: calls.append(here), channels="final")
    options = {"max_tokens": 5, "interventions": [hook], "continue_from": "xyz"}
    for row, reply in enumerate(lab.chat_batch(QUESTIONS, **options)):
        labels = label_token_ids(lab.tokenizer, [*reply.prompt_tokens, *reply.ids[:-1]])
        final = [n for n, label in enumerate(labels) if label.channel == "final"]
        assert len(final) > 5
        assert watch_row(calls, row)[0] == final


@pytest.mark.parametrize("at", ["prompt", "generation"])
def test_an_exception_of_a_hook_reaches_the_caller_unchanged(lab, at):
    mine = KeyError("mine")

    def fail(x, here):
        if here.is_prefill == (at == "prompt") and here.row == 0:
            raise mine

    hook = {"interventions": [Hook("attn.z", fail, layer=1)]}
    stream = lab.stream("a", max_tokens=4, **hook)
    calls = [
        lambda: lab.chat("a", max_tokens=4, **hook),
        lambda: lab.chat_batch(QUESTIONS, max_tokens=4, **hook),
        lambda: list(stream),
    ]
    if at == "prompt":
        calls += [
            lambda: lab.trace(TOKENS, ["attn.z"], **hook),
            lambda: lab.trace_batch([TOKENS, range(9)], ["attn.z"], **hook),
            lambda: lab.logits(TOKENS, **hook),
        ]
    for call in calls:
        with pytest.raises(KeyError) as raised:
            call()
        assert raised.value is mine


def test_an_interrupted_forward_has_no_effect(lab):
    def fail(x, here):
        raise InterruptedError

    tokens, cache = torch.tensor([list(TOKENS)]), KVCache(lab.config)
    run_forward(lab, tokens[:, :20], cache)
    changes = AblateHead(layer=0, head=0), Hook("attn.z", fail, layer=1)
    with pytest.raises(InterruptedError), lab.intervene(*changes) as effects:
        run_forward(lab, tokens[:, 20:], cache)
    assert [effect.calls for effect in effects.each] == [0, 0]
    assert cache.length == 20
    close(run_forward(lab, tokens[:, 20:], cache)[0], lab.logits(TOKENS)[20:])
