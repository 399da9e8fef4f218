"""nano in JavaScript against `oss_lab`: logits, cache, and every point. Replies alone would show
little: with most of the faults below, greedy replies stay the same.
"""

import random

import numpy as np
import pytest
import torch
from oss_widgets.join import join_modules, read_modules
from safetensors.torch import save_file

from oss_lab.hooks.points import POINTS
from oss_lab.nano.gallery import GALLERY

TOLERANCE = 1e-3  # for logits up to 22; the largest difference found was 3e-5
LENGTHS = (1, 2, 31, 32, 33, 64, 65, 128, 255, 256, 257, 600)
SEQ = 40  # more than the window of 32

READ = "(ids) => toText(nano.forward(ids, newCache()))"


@pytest.fixture(scope="module")
def sequences(lab) -> list[list[int]]:
    """Random ids of many lengths, and the prompts of the gallery."""
    rng = random.Random(7)
    vocab = lab.config.vocab_size
    numbers = [[rng.randrange(vocab) for _ in range(length)] for length in LENGTHS]
    return numbers + [lab.tokens_of(example.question) for example in GALLERY]


@pytest.fixture(scope="module")
def long_sequence(sequences) -> list[int]:
    """Text of nano's language and random ids: long enough that every fault below shows."""
    prompts = [id for each in sequences[len(LENGTHS) :][:2] for id in each]
    return prompts[:140] + sequences[4]


@pytest.fixture(scope="module")
def expected_logits(lab, long_sequence) -> np.ndarray:
    return lab.logits(long_sequence).numpy()


def test_logits_equal_those_of_the_lab(nano_page, lab, sequences, to_array):
    assert len(sequences) >= 20
    worst = 0.0
    for ids in sequences:
        found = to_array(nano_page.evaluate(READ, ids), (len(ids), lab.config.vocab_size))
        worst = max(worst, np.abs(found - lab.logits(ids).numpy()).max())
    assert worst < TOLERANCE


FAULTS = {
    "window one key short": (
        "model/attention.js",
        "Math.max(0, position + 1 - window)",
        "Math.max(0, position + 2 - window)",
    ),
    "no sinks": ("model/attention.js", "const sink = Math.exp(", "const sink = 0 * Math.exp("),
    "no clamp of the gate": ("model/moe.js", "Math.min(gate[n], limit)", "gate[n]"),
    "no clamp of the up projection": (
        "model/moe.js",
        "Math.max(-limit, Math.min(up[n], limit))",
        "up[n]",
    ),
    "alpha 1": ("model/moe.js", "Math.exp(-alpha * g)", "Math.exp(-g)"),
    "no YaRN": ("model/rope.js", "if (factor <= 1) return unscaled;", "return unscaled;"),
    "no concentration": (
        "model/rope.js",
        "const scale = concentration(config);",
        "const scale = 1;",
    ),
    "rotation with a wrong sign": (
        "model/rope.js",
        "x[head + pair + half] = b * cos[pair] + a * sin[pair];",
        "x[head + pair + half] = b * cos[pair] - a * sin[pair];",
    ),
    "wrong group of query heads": (
        "model/attention.js",
        "let at = (end - count) * keyWidth + Math.floor(head / group) * headDim;",
        "let at = (end - count) * keyWidth + (head % (keyWidth / headDim)) * headDim;",
    ),
    "softmax before the choice": (
        "model/moe.js",
        "weights[slot] /= sum;",
        "weights[slot] /= routerLogits.reduce((all, x) => all + Math.exp(x - largest), 0);",
    ),
    "no bias of the second matrix": (
        "model/moe.js",
        "this.mlp2Weight.matrix(expert), inputs, bias)",
        "this.mlp2Weight.matrix(expert), inputs)",
    ),
    "no router bias": (
        "model/moe.js",
        "this.routerWeight, this.normed, this.routerBias)",
        "this.routerWeight, this.normed)",
    ),
    "only one half of each byte": ("checkpoint/mxfp4.js", "blocks[at] & 15", "blocks[at] >> 4"),
    "gate and up in halves": (
        "model/moe.js",
        "this.gateUp[2 * n + 1]",
        "this.gateUp[width + n]",
    ),
    "scores scaled wrongly": ("model/attention.js", "headDim ** -0.5", "headDim ** -0.4"),
    "values not cached": ("engine/cache.js", "stored.values.set(v, begin);", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_finds_a_fault(nano_page, long_sequence, expected_logits, to_array, fault):
    name, right, wrong = FAULTS[fault]
    modules = read_modules()
    assert modules[name].count(right) == 1
    modules[name] = modules[name].replace(right, wrong)
    run = """([script, ids]) => {
      const changed = new Function(`${script}; return modules;`)();
      const model = startNano(changed);
      return toText(model.forward(ids, new changed["engine/cache.js"].KVCache(model.config)));
    }"""
    script = join_modules(modules, ["model/transformer.js", "engine/cache.js"])
    text = nano_page.evaluate(run, [script, long_sequence])
    found = to_array(text, expected_logits.shape)
    assert np.abs(found - expected_logits).max() > 100 * TOLERANCE


def test_the_table_of_points_is_that_of_python(joined_page):
    table = joined_page.evaluate('modules["hooks/points.js"].POINTS')
    assert list(table) == list(POINTS)
    for name, point in POINTS.items():
        assert table[name] == {
            "axes": list(point.axes),
            "isPerLayer": point.is_per_layer,
            "sources": list(point.sources),
            "isReadOnly": point.read_only_reason is not None,
        }


def test_every_point_equals_that_of_a_trace(nano_page, lab, sequences, to_array):
    ids = sequences[-1][:SEQ]
    trace = lab.trace(ids, list(POINTS))
    run = """([ids, names]) => {
      const recorder = new modules["hooks/recorder.js"].Recorder(nano, names);
      const logits = nano.forward(ids, newCache(), { hooks: recorder.hooks });
      const quiet = nano.forward(ids, newCache());
      const found = {};
      for (const name of names) {
        const { isPerLayer } = modules["hooks/points.js"].POINTS[name];
        for (const layer of isPerLayer ? nano.blocks.keys() : [null]) {
          const { shape, data } = recorder.get(name, layer);
          found[`${name} ${layer ?? ""}`] = [shape, toText(data), data instanceof Int32Array];
        }
      }
      return [found, logits.every((value, n) => value === quiet[n])];
    }"""
    found, is_unchanged = nano_page.evaluate(run, [ids, list(POINTS)])
    assert is_unchanged
    for name, point in POINTS.items():
        for layer in range(lab.config.num_hidden_layers) if point.is_per_layer else [None]:
            shape, text, is_integer = found[f"{name} {'' if layer is None else layer}"]
            expected = trace.tensor(name, layer).numpy()
            values = to_array(text, tuple(shape), np.int32 if is_integer else np.float32)
            assert values.shape == expected.shape, name
            if is_integer:
                np.testing.assert_array_equal(values, expected, name)
            else:
                np.testing.assert_allclose(values, expected, atol=3e-4, rtol=1e-4, err_msg=name)


def test_a_recording_can_start_after_other_tokens(nano_page, lab, sequences, to_array):
    ids = sequences[5][:50]
    run = """(ids) => {
      const cache = newCache();
      nano.forward(ids.slice(0, 45), cache, { last: 0 });
      const names = ["attn.pattern", "attn.lse"];
      const recorder = new modules["hooks/recorder.js"].Recorder(nano, names, [0]);
      nano.forward(ids.slice(45), cache, { hooks: recorder.hooks });
      return names.map((name) => [recorder.get(name, 0).shape, toText(recorder.get(name, 0).data)]);
    }"""
    trace = lab.trace(ids, ["attn.pattern", "attn.lse"], layers=[0])
    for name, (shape, text) in zip(
        ("attn.pattern", "attn.lse"), nano_page.evaluate(run, ids), strict=True
    ):
        expected = trace.tensor(name, 0).numpy()[45:]
        np.testing.assert_allclose(to_array(text, tuple(shape)), expected, atol=1e-4)


def test_a_cache_can_be_continued_forked_and_truncated(nano_page, sequences):
    ids = sequences[9][:90]
    run = """(ids) => {
      const whole = nano.forward(ids, newCache(), { last: 10 });
      const cache = newCache();
      nano.forward(ids.slice(0, 50), cache, { last: 0 });
      const fork = cache.fork(30);
      nano.forward([5, 6, 7], fork); // another continuation
      fork.truncate(30);
      const sizes = [cache.length, fork.length];
      nano.forward(ids.slice(30, 80), fork, { last: 0 });
      const continued = nano.forward(ids.slice(80), fork);
      nano.forward(ids.slice(50, 80), cache, { last: 0 }); // the parent is not changed
      const parent = nano.forward(ids.slice(80), cache);
      const stop = () => { throw new Error("stop"); };
      const message = refusalOf(() => nano.forward([1, 2], cache, { hooks: stop }));
      const same = (other) => whole.every((value, n) => value === other[n]);
      return [same(continued), same(parent), sizes, cache.length, message];
    }"""
    assert nano_page.evaluate(run, ids) == [True, True, [50, 30], 90, "Error: stop"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "nano.forward([640], newCache())",
            "token id 640 is out of range; the model has ids 0 to 639",
        ),
        (
            "nano.forward([1.5], newCache())",
            "token id 1.5 is out of range; the model has ids 0 to 639",
        ),
        ("newCache().truncate(1)", "cannot truncate a cache of 0 tokens to 1"),
        ("newCache().fork(1)", "cannot fork a cache of 0 tokens at 1"),
        ("startNano(modules, { head_dim: undefined })", "config.json has no number head_dim"),
        (
            "startNano(modules, { vocab_size: 641 })",
            "embedding.weight is [640,96]; config.json needs [641,96]",
        ),
        (
            "startNano(modules, { num_hidden_layers: 5 })",
            "the checkpoint has no tensor block.4.attn.norm.scale",
        ),
    ],
)
def test_a_wrong_call_is_refused_in_a_sentence(nano_page, call, message):
    assert nano_page.evaluate(f"() => refusalOf(() => {call})") == message


def test_tensors_of_every_dtype_are_read(nano_page, to_array, tmp_path):
    """Also from bytes that start at an odd place, as in a message of a widget."""
    halves = torch.tensor([0.0, -0.0, 1.5, -2.25, 65504.0, 6e-8, 3e-5, torch.inf, -torch.inf])
    tensors = {
        "a": torch.tensor([7], dtype=torch.uint8),
        "bf16": halves.bfloat16(),
        "f16": halves.half(),
        "f32": torch.tensor([1.1, -3e38]),
        "f64": torch.tensor([1.1, -1e300], dtype=torch.float64),
        "i32": torch.tensor([-5, 2**31 - 1], dtype=torch.int32),
        "i8": torch.tensor([-5, 127], dtype=torch.int8),
    }
    file = tmp_path / "some.safetensors"
    save_file(tensors, file, {"key": "värde"})
    run = """(bytes) => {
      const { readSafetensors, readNumbers } = modules["checkpoint/safetensors.js"];
      const shifted = new Uint8Array(bytes.length + 1);
      shifted.set(bytes, 1);
      const { tensors, metadata } = readSafetensors(shifted.subarray(1));
      const wrong = [bytes.slice(0, 5), bytes.slice(0, 20), bytes.slice(0, -1), [...bytes, 0]];
      const refusals = wrong.map((each) => refusalOf(() => readSafetensors(Uint8Array.from(each))));
      const numbers = (tensor) => toText(Float64Array.from(readNumbers(tensor)));
      const found = [...tensors].map(([name, tensor]) => [name, numbers(tensor)]);
      return [found, metadata, refusals];
    }"""
    found, metadata, refusals = nano_page.evaluate(run, list(file.read_bytes()))
    assert metadata == {"key": "värde"}
    assert {name for name, _ in found} == set(tensors)
    for name, text in found:
        expected = tensors[name].double().numpy()
        np.testing.assert_array_equal(to_array(text, expected.shape, np.float64), expected, name)
    assert [each.split(" within")[0] for each in refusals] == [
        "the file ends",
        "the file ends",
        "the file is cut off",
        "the header does not describe every byte of the file",
    ]
