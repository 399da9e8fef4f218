"""Interventions, knock-outs, the logit lens and the sampler in JavaScript against `oss_lab`."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from oss_lab import (
    AblateExpert,
    AblateHead,
    AblateSlot,
    AddVector,
    BanExpert,
    BiasExpert,
    ForceExpert,
    HideKeys,
    NarrowWindow,
    Patch,
    RemoveSink,
    ScaleExpert,
    ScaleHead,
    ScaleSlot,
    SetSink,
    ShiftSink,
    UseNextBest,
)
from oss_lab.engine.sampler import filter_tokens, sample
from oss_lab.engine.sampling import Sampling

TOLERANCE = 1e-3
QUESTION = "What is 347 * 62?"

VECTOR = [math.sin(n) for n in range(96)]
INTERVENTIONS: list[tuple[type, dict[str, Any]]] = [
    (AblateHead, {"layer": 1, "head": 3}),
    (AblateHead, {"layer": [0, 2], "head": [1, 7], "positions": [5, 40, 41]}),
    (ScaleHead, {"layer": "all", "head": 0, "by": 2.5}),
    (RemoveSink, {"layer": 0, "head": "all"}),
    (SetSink, {"layer": 1, "head": 2, "to": 3.0}),
    (ShiftSink, {"layer": "all", "head": "all", "by": 1.0}),
    (AblateExpert, {"layer": "all", "expert": list(range(0, 32, 3))}),
    (ScaleExpert, {"layer": 2, "expert": "all", "by": 0.5, "positions": [30, 31]}),
    (AblateSlot, {"layer": 0, "slot": 0}),
    (ScaleSlot, {"layer": 3, "slot": 2, "by": -2.0}),
    (BanExpert, {"layer": "all", "expert": list(range(16))}),
    (BiasExpert, {"layer": 1, "expert": 9, "by": 6.0}),
    (ForceExpert, {"layer": 2, "expert": 4, "slot": 3}),
    (UseNextBest, {"layer": "all", "slot": 0}),
    (HideKeys, {"layer": [1, 2], "keys": [0, 40, 41], "first_query": 45}),
    (NarrowWindow, {"layer": "all", "keys": 5}),
    (AddVector, {"point": "resid.mid", "layer": 1, "vector": VECTOR, "by": 2.0}),
    (AddVector, {"point": "embed", "vector": VECTOR, "positions": [3, 50]}),
]


@pytest.fixture(scope="module")
def tokens(lab) -> list[int]:
    """A prompt and one reply to it."""
    reply = " 347 * 62 = 21514"
    return lab.tokens_of(QUESTION) + lab.tokenizer.encode_ordinary(reply)


@pytest.mark.parametrize("chosen", range(len(INTERVENTIONS)))
def test_an_intervention_does_what_it_does_in_the_lab(nano_page, lab, tokens, to_array, chosen):
    kind, fields = INTERVENTIONS[chosen]
    run = """([ids, spec]) => {
      const { makeHooks } = modules["hooks/interventions.js"];
      const { hooks, changed } = makeHooks(nano.config, [spec]);
      return [toText(nano.forward(ids, newCache(), { hooks })), changed];
    }"""
    text, (changed,) = nano_page.evaluate(run, [tokens, {"kind": kind.__name__, **fields}])
    found = to_array(text, (len(tokens), lab.config.vocab_size))
    with lab.intervene(kind(**fields)):
        expected = lab.logits(tokens).numpy()
    assert np.abs(found - expected).max() < TOLERANCE
    assert changed > 0
    assert np.abs(expected - lab.logits(tokens).numpy()).max() > 10 * TOLERANCE


def test_interventions_apply_in_order_and_count_what_they_changed(nano_page, lab, tokens, to_array):
    """The second one reads the ids that the first one changed."""
    both = [ForceExpert(layer=1, expert=4, slot=0), AblateExpert(layer=1, expert=4)]
    run = """(ids) => {
      const { hooks, changed } = modules["hooks/interventions.js"].makeHooks(nano.config, [
        { kind: "ForceExpert", layer: 1, expert: 4, slot: 0 },
        { kind: "AblateExpert", layer: 1, expert: 4 },
        { kind: "AblateHead", layer: 1, head: 0, positions: [1000] },
      ]);
      return [toText(nano.forward(ids, newCache(), { hooks })), changed];
    }"""
    text, changed = nano_page.evaluate(run, tokens)
    with lab.intervene(*both):
        expected = lab.logits(tokens).numpy()
    assert np.abs(to_array(text, expected.shape) - expected).max() < TOLERANCE
    ids = lab.trace(tokens, ["moe.expert_ids"], layers=[1]).tensor("moe.expert_ids", 1)
    absent = int((ids != 4).all(-1).sum())
    assert absent > 0
    assert changed == [absent, len(tokens), 0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "AblateHeads", "layer": 0}, "unknown intervention AblateHeads"),
        ({"kind": "AblateHead", "head": 0}, "AblateHead needs layer"),
        ({"kind": "ScaleHead", "layer": 0, "head": 0}, "ScaleHead needs by"),
        (
            {"kind": "AblateHead", "layer": 0, "head": 8},
            "head 8 is out of range; this model has heads",
        ),
        ({"kind": "AblateHead", "layer": [0, 4], "head": 0}, "layer 4 is out of range"),
        ({"kind": "AblateSlot", "layer": 0, "slot": "all"}, "slot all is out of range"),
        ({"kind": "ForceExpert", "layer": 0, "slot": 0, "expert": [1]}, "expert 1 is out of range"),
        (
            {"kind": "ScaleSlot", "layer": 0, "slot": 0, "by": "2"},
            "by is 2; it must be a finite number",
        ),
        (
            {"kind": "SetSink", "layer": 0, "head": 0, "to": 1, "positions": [1]},
            "SetSink has no positions",
        ),
        (
            {"kind": "BanExpert", "layer": 0, "expert": list(range(29))},
            "leaves 3 experts, but every token needs 4",
        ),
        ({"kind": "HideKeys", "layer": 0, "keys": [-1], "first_query": 3}, "HideKeys: keys is -1"),
        ({"kind": "HideKeys", "layer": 0, "keys": [1]}, "HideKeys needs first_query"),
        ({"kind": "NarrowWindow", "layer": 0, "keys": 0}, "keys is 0; it must be an integer of 1"),
        (
            {"kind": "AddVector", "layer": 0, "point": "attn.z", "vector": VECTOR},
            "attn.z has [seq head head_dim]",
        ),
        ({"kind": "AddVector", "layer": 0, "point": "moe.x", "vector": []}, "unknown point moe.x"),
        (
            {"kind": "AddVector", "layer": 0, "point": "embed", "vector": VECTOR},
            "AddVector has no layer",
        ),
        (
            {"kind": "AddVector", "layer": 0, "point": "moe.out", "vector": [1]},
            "the vector has 1 numbers; expected 96",
        ),
        ({"kind": "AblateHead", "layer": 0, "head": 0, "positions": []}, "positions is empty"),
        (
            {"kind": "AddVector", "layer": 0, "point": "resid.post", "vector": {"length": 96}},
            "AddVector: the vector is not a list of numbers",
        ),
    ],
)
def test_a_wrong_intervention_is_refused_in_a_sentence(nano_page, spec, message):
    run = """(spec) => {
      const { makeHooks } = modules["hooks/interventions.js"];
      return refusalOf(() => makeHooks(nano.config, [spec]));
    }"""
    assert message in (nano_page.evaluate(run, spec) or "")


def test_knocking_out_and_swapping_each_slot_gives_the_logits_of_the_lab(
    nano_page, lab, tokens, to_array
):
    """What is computed from the changed layer on equals a whole forward pass."""
    at = len(tokens) - 2
    run = """([ids, at]) => {
      const { knockOutSlot, swapExpert, knockOutSlots } = modules["analysis/knockout.js"];
      const { RepeatedToken } = modules["analysis/repeated_token.js"];
      const cache = newCache();
      nano.forward(ids.slice(0, at - 1), cache, { last: 0 });
      const found = knockOutSlots(nano, cache, ids, at);
      const token = new RepeatedToken(nano, cache, ids[at - 1]);
      const logits = [0, 1, 2, 3].flatMap((layer) => [0, 1, 2, 3].map((slot) => {
        const stranger = found.swapped.expertIds[4 * layer + slot];
        return [
          toText(knockOutSlot(token, layer, slot)),
          toText(swapExpert(token, layer, slot, stranger)),
        ];
      }));
      const plain = (object) => Object.fromEntries(Object.entries(object).map(([name, value]) =>
        [name, value.buffer ? [...value] : value]));
      return [logits, { ...plain(found), swapped: plain(found.swapped) }, cache.length];
    }"""
    logits, found, length = nano_page.evaluate(run, [tokens, at])
    assert length == at - 1  # the cache is unchanged

    target = tokens[at]
    plain = lab.logits(tokens[:at])[-1].double()
    points = ["moe.expert_ids", "moe.expert_weights", "moe.margin"]
    trace = lab.trace(tokens[:at], points, positions=[at - 1])

    def logprob(row):
        return row.log_softmax(-1)[target].item()

    def margin(row):
        others = torch.cat((row[:target], row[target + 1 :]))
        return (row[target] - others.max()).item()

    assert found["logprob"] == pytest.approx(logprob(plain), abs=1e-4)
    assert found["margin"] == pytest.approx(margin(plain), abs=1e-4)
    chosen = torch.cat([trace["moe.expert_ids", layer][0] for layer in range(4)])
    assert found["expertIds"] == chosen.tolist()
    margins = [trace["moe.margin", layer].item() for layer in range(4)]
    np.testing.assert_allclose(found["routerMargins"], margins, atol=1e-4)
    for n, texts in enumerate(logits):
        layer, slot = divmod(n, 4)
        ids = trace["moe.expert_ids", layer].clone()
        stranger = found["swapped"]["expertIds"][n]
        assert stranger not in ids
        ids[0, slot] = stranger
        here = {"layer": layer, "positions": [at - 1]}
        weights = trace["moe.expert_weights", layer]
        for text, result, change in [
            (texts[0], found, [ScaleSlot(slot=slot, by=0.0, **here)]),
            (texts[1], found["swapped"], [
                Patch(point="moe.expert_ids", values=ids, **here),
                Patch(point="moe.expert_weights", values=weights, **here),
            ]),
        ]:  # fmt: skip
            changed = lab.logits(tokens[:at], last=1, interventions=change)[-1]
            assert np.abs(to_array(text, changed.shape) - changed.numpy()).max() < TOLERANCE
            changed = changed.double()
            expected = logprob(changed) - logprob(plain)
            assert result["logprobChanges"][n] == pytest.approx(expected, abs=1e-3)
            expected = margin(changed) - margin(plain)
            assert result["marginChanges"][n] == pytest.approx(expected, abs=1e-3)
            if result is found:
                assert found["likeliest"][n] == int(changed.argmax())
    assert max(map(abs, found["marginChanges"])) > 0.1


SAMPLINGS = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 2.0, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.5},
    {"temperature": 1.5, "min_p": 0.1},
    {"temperature": 1.5, "top_k": 9, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 1e-6},
    {"temperature": 0.0},
]


class Given:
    """A random stream of one given number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniform(self) -> float:
        return self.number


@pytest.mark.parametrize("settings", SAMPLINGS)
def test_the_same_random_numbers_give_the_same_tokens(nano_page, settings):
    rng = random.Random(str(settings))
    rows = [[rng.gauss(0, 3) for _ in range(640)] for _ in range(20)]
    rows[0] = [float(n % 4) for n in range(640)]  # many equal logits
    logits = torch.tensor(rows)
    logits[1, 100:] = -math.inf
    numbers = [[rng.random() for _ in range(20)] for _ in rows]
    for row in numbers:
        row[:2] = [1 - 2**-53, 0.0]
    run = """([rows, numbers, settings]) => rows.map((row, n) => {
      const { sample, filterTokens } = modules["engine/sampler.js"];
      const logits = Float32Array.from(row, (value) => value ?? -Infinity);
      const drawn = numbers[n].map((number) => sample(logits, settings, () => number));
      const isGreedy = settings.temperature === 0;
      return [drawn, isGreedy ? drawn.slice(0, 1) : filterTokens(logits, settings).ids];
    })"""
    names = {"top_k": "topK", "top_p": "topP", "min_p": "minP"}
    in_page = {names.get(name, name): value for name, value in settings.items()}
    plain = [[None if x == -math.inf else x for x in row] for row in logits.tolist()]
    found = nano_page.evaluate(run, [plain, numbers, in_page])
    sampling = Sampling(**settings)
    for n, (drawn, kept) in enumerate(found):
        assert kept == filter_tokens(logits[n], sampling)[0].tolist()
        streams: Any = [Given(number) for number in numbers[n]]
        expected = sample(logits[n].expand(20, -1), [sampling] * 20, streams)
        assert drawn[1:] == expected[1:]
        assert drawn[0] in kept  # the largest number: the rounding of the sums decides


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature is -1; it must be 0 or more"),
        ({"topK": 0}, "topK is 0; it must be 1 or more"),
        ({"topP": 0}, "topP is 0; it must be above 0 and at most 1"),
        ({"top_p": 0.5}, "unknown setting top_p; use temperature, topK, topP, minP"),
    ],
)
def test_wrong_settings_are_refused(nano_page, settings, message):
    run = """(settings) => {
      const { sample } = modules["engine/sampler.js"];
      return refusalOf(() => sample(new Float32Array(3), settings, Math.random));
    }"""
    assert nano_page.evaluate(run, settings) == message


def test_logits_that_are_not_finite_are_refused(nano_page):
    run = """() => [[0, NaN], [NaN, 0], [0, Infinity], [-Infinity, -Infinity]].flatMap((row) =>
      [0, 1].map((temperature) => {
        const { sample } = modules["engine/sampler.js"];
        return refusalOf(() => sample(Float32Array.from(row), { temperature }, () => 0.5));
      }))"""
    message = "the logits are not finite; the weights or an intervention caused it"
    assert nano_page.evaluate(run) == [message] * 8


def test_random_numbers_repeat_with_their_seed_and_are_uniform(nano_page):
    run = """() => {
      const { RandomStream } = modules["engine/random.js"];
      const draw = (seed) => {
        const stream = new RandomStream(seed);
        return Array.from({ length: 20000 }, () => stream.uniform());
      };
      return [draw(3), draw(3), draw(2 ** 40 + 3), draw(null), draw(null)];
    }"""
    first, again, other, *free = nano_page.evaluate(run)
    assert first == again
    assert len({first[0], other[0], free[0][0], free[1][0]}) == 4
    for numbers in (first, other):
        assert min(numbers) >= 0
        assert max(numbers) < 1
        counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
        assert ((counts - 400) ** 2 / 400).sum() < 100  # chi-squared of 49 degrees; p = 2e-5
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03


def test_a_generated_reply_is_the_greedy_one_of_the_lab(nano_page, lab):
    reply = lab.chat(QUESTION, effort="low", max_tokens=40, temperature=0.0)
    run = """async ([prompt, stop]) => {
      const { generate } = modules["engine/generate.js"];
      const collect = async (options) => {
        const cache = newCache();
        const found = [];
        const all = { stop, maxTokens: 40, ...options };
        for await (const token of generate(nano, cache, prompt, all)) {
          found.push(token);
          if (found.length === 2) options.controller?.abort();
        }
        return [found.map(({ id }) => id), found.map(({ logprob }) => logprob), cache.length];
      };
      const controller = new AbortController();
      const sampling = { temperature: 1, seed: 5 };
      return {
        greedy: await collect({}),
        aborted: await collect({ signal: controller.signal, controller }),
        sampled: [await collect({ sampling }), await collect({ sampling })],
        other: await collect({ sampling: { temperature: 1, seed: 6 } }),
        even: await collect({ isUsable: (id) => id % 2 === 0 }),
      };
    }"""
    stop = lab.tokenizer.encode("<|return|><|call|>", allowed_special="all")
    prompt = list(reply.prompt_tokens)
    found = nano_page.evaluate(run, [prompt, stop])
    ids, logprobs, length = found["greedy"]
    assert ids == list(reply.ids)
    np.testing.assert_allclose(logprobs, reply.logprobs, atol=1e-3)
    assert length == len(prompt) + len(ids) - 1
    assert found["aborted"][0] == ids[:2]
    assert found["sampled"][0] == found["sampled"][1]
    assert found["other"][0] != found["sampled"][0][0]
    assert all(id % 2 == 0 for id in found["even"][0])
