"""The analyses of nano in the page, compared with Python."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open

import oss_lab
from oss_lab import AblateExpert, ScaleHead, ScaleSlot
from oss_lab.analysis.lens import lens
from oss_lab.record.token_labels import token_text

QUESTION = "What is 347 * 62?"
SPECS = [{"kind": "ScaleHead", "layer": 1, "head": 2, "by": 3},
         {"kind": "AblateExpert", "layer": 0, "expert": 27}]  # fmt: skip

# A finished run under two interventions, a fork of it without them, and the ids of the fork.
SET_UP = """async ([question, interventions]) => {
  window.source = newSource();
  const request = { question, effort: "high", interventions };
  window.whole = await finish(source, await source.ask(request));
  const at = whole.promptLength + 20;
  window.run = await finish(source, await source.fork(whole, at, { interventions: [] }));
  return [run.tokens.map(({ id }) => id), at, run.promptLength];
}"""


@pytest.fixture(scope="module")
def run(live_page):
    """The ids of the fork, the position since which it has no interventions, and its prompt."""
    return live_page.evaluate(SET_UP, [QUESTION, SPECS])


@pytest.fixture(scope="module")
def changes(run):
    """What Python applies to compute the same: the interventions before the fork."""
    _, at, _ = run
    before = range(at - 1)
    return [ScaleHead(layer=1, head=2, by=3, positions=before),
            AblateExpert(layer=0, expert=27, positions=before)]  # fmt: skip


def test_knock_outs_respect_the_interventions(live_page, lab, run, changes) -> None:
    ids, at, _ = run
    for position in (at - 5, at + 3):
        found = live_page.evaluate(
            """async (at) => {
              const result = await source.analyze(run, "knockOut", { at });
              return [[...result.logprobChanges], [...result.expertIds], result.logprob];
            }""",
            position,
        )
        plain = lab.logits(ids[:position], last=1, interventions=changes)[-1].double()
        before = plain.log_softmax(-1)[ids[position]].item()
        assert found[2] == pytest.approx(before, abs=1e-3)
        trace = lab.trace(ids[:position], ["moe.expert_ids"], interventions=changes)
        chosen = [trace["moe.expert_ids", layer][-1].tolist() for layer in range(4)]
        assert found[1] == [id for ids in chosen for id in ids]
        for n in (0, 5, 10, 15):
            slot = ScaleSlot(layer=n // 4, slot=n % 4, by=0.0, positions=[position - 1])
            logits = lab.logits(ids[:position], last=1, interventions=[*changes, slot])[-1]
            after = logits.double().log_softmax(-1)[ids[position]].item()
            assert found[0][n] == pytest.approx(after - before, abs=1e-3)


def test_marks_are_the_largest_changes(live_page, run) -> None:
    ids, _, start = run
    marks, one, calls, seconds = live_page.evaluate(
        """async () => {
          let calls = 0;
          const options = { onProgress: () => (calls += 1) };
          const { largest } = await source.analyze(run, "knockOutMarks", options);
          const at = largest.findIndex((value) => value === largest.reduce((a, b) =>
            Number.isNaN(b) ? a : Math.max(a, b), 0));
          const { logprobChanges } = await source.analyze(run, "knockOut", { at });
          const began = performance.now();
          await source.analyze(run, "knockOutMarks", {});
          return [[...largest].map((x) => Number.isNaN(x) ? null : x), [at, [...logprobChanges]],
                  calls, (performance.now() - began) / 1000];
        }"""
    )
    assert len(marks) == len(ids)
    assert marks[:start] == [None] * start
    assert None not in marks[start:]
    at, changes = one
    assert marks[at] == pytest.approx(max(map(abs, changes)), abs=1e-6)
    assert marks[at] > 0.1
    assert calls > 1
    assert seconds < 1  # kept


def test_the_logit_lens_is_that_of_the_lab(live_page, lab, run, changes) -> None:
    ids, at, _ = run
    first, end = at - 6, at + 6
    found = live_page.evaluate(
        """async ([from, to]) => source.analyze(run, "lens", { from, to, top: 3 })""", [first, end]
    )
    with lab.intervene(*changes):
        expected = lens(lab, ids, top=3)
    for layer, cells in enumerate(found):
        assert len(cells) == end - first
        for position, cell in enumerate(cells, first):
            where = (layer, position)
            assert cell["topIds"] == expected.top_ids[where].tolist()
            assert cell["topTexts"] == [token_text(lab.tokenizer, id) for id in cell["topIds"]]
            assert cell["rank"] == int(expected.rank[where])
            np.testing.assert_allclose(cell["topLogprobs"], expected.top_logprobs[where], atol=1e-3)
            for name in ("logprob", "entropy", "divergence"):
                value = getattr(expected, name)[where].item()
                assert cell[name] == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(
    ("matrix", "tensor"), [("gate_up", "mlp1_weight"), ("down", "mlp2_weight")]
)
def test_a_block_is_what_the_checkpoint_stores(live_page, run, matrix, tensor) -> None:
    place = {"layer": 2, "expert": 9, "matrix": matrix, "row": 41, "block": 1}
    packed, scale, values = live_page.evaluate(
        """async (place) => {
          const { packed, scale, values } = await source.analyze(run, "block", place);
          return [[...packed], scale, [...values]];
        }""",
        place,
    )
    file = str(oss_lab.__path__[0]) + "/assets/nano/model.safetensors"
    with safe_open(file, "pt") as opened:
        blocks = opened.get_tensor(f"block.2.mlp.{tensor}.blocks")[9, 41, 1]
        scales = opened.get_tensor(f"block.2.mlp.{tensor}.scales")[9, 41, 1]
    assert packed == blocks.tolist()
    assert scale == int(scales)
    e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    nibbles = [nibble for byte in packed for nibble in (byte & 15, byte >> 4)]
    expected = [(-1 if n & 8 else 1) * e2m1[n & 7] * 2.0 ** (scale - 127) for n in nibbles]
    assert values == expected


FLIP = """async ([place, bit, at]) => {
  try {
    const found = await source.analyze(run, "flipBit", { place, bit, at });
    return { ...found, block: [[...found.block.packed], found.block.scale] };
  } catch (error) {
    return error instanceof modules["errors.js"].LabError ? error.message : `${error}`;
  }
}"""


@pytest.mark.parametrize(
    ("matrix", "tensor", "bit"),
    [("gate_up", "mlp1_weight", 3 + 4 * 7), ("down", "mlp2_weight", 130)],
)
def test_a_flipped_bit_is_that_of_a_changed_checkpoint(
    live_page, lab, run, changes, tmp_path, matrix, tensor, bit
) -> None:
    ids, at, _ = run
    points = ["moe.expert_ids", "moe.out"]
    plain = lab.trace(ids[:at], points, interventions=changes)
    expert = int(plain["moe.expert_ids", 2][-1, 0])
    place = {"layer": 2, "expert": expert, "matrix": matrix, "row": 5, "block": 2}
    found = live_page.evaluate(FLIP, [place, bit, at])

    folder = tmp_path / "nano"
    shutil.copytree(str(oss_lab.__path__[0]) + "/assets/nano", folder)
    file = folder / "model.safetensors"
    kind, byte, mask = ("scales", 0, 1 << (bit - 128)) if bit >= 128 else (
        "blocks", bit // 8, 1 << (bit % 8)
    )  # fmt: skip
    data = bytearray(file.read_bytes())
    flip_byte(data, f"block.2.mlp.{tensor}.{kind}", (expert, 5, 2, byte), mask)
    file.write_bytes(data)
    broken = oss_lab.load(folder, device="cpu", kernels="reference", verbose=False)

    changed = broken.trace(ids[:at], points, interventions=changes)
    before, after = (each["moe.out", 2][-1].double() for each in (plain, changed))
    expected = ((after - before).pow(2).mean() / before.pow(2).mean()).sqrt().item()
    assert expected > 0
    assert found["outputChange"] == pytest.approx(expected, rel=1e-3)
    assert found["uses"] == int((plain["moe.expert_ids", 2] == expert).any(-1).sum())
    for name, each in (("before", lab), ("after", broken)):
        logprobs = each.logits(ids[:at], last=1, interventions=changes)[-1].log_softmax(-1)
        best = logprobs.topk(5)
        assert [token["id"] for token in found[name]] == best.indices.tolist()
        np.testing.assert_allclose(
            [token["logprob"] for token in found[name]], best.values, atol=1e-3
        )
    again = live_page.evaluate(FLIP, [place, bit, at])
    assert again == found  # nothing stayed changed


def flip_byte(data: bytearray, name: str, place: tuple[int, ...], mask: int) -> None:
    """Flip bits of one byte of a tensor in the bytes of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[name]
    index = np.ravel_multi_index(place[: len(entry["shape"])], entry["shape"])
    data[8 + length + entry["data_offsets"][0] + int(index)] ^= mask


def test_a_flip_that_breaks_the_model_leaves_it_whole(live_page, run) -> None:
    ids, at, _ = run
    logits = """(ids) => {
      const cache = new modules["engine/cache.js"].KVCache(source.model.config);
      return toText(source.model.forward(ids, cache, { last: 1 }));
    }"""
    before = live_page.evaluate(logits, ids)
    experts = live_page.evaluate(
        "(async () => (await source.points(run, 'moe.expert_ids', 1)).data[0])()"
    )
    place = {"layer": 1, "expert": experts, "matrix": "down", "row": 0, "block": 0}
    refused = live_page.evaluate(FLIP, [place, 128 + 7, at])
    assert refused == "with this bit flipped, the logits are not finite; flip a lower bit"
    for wrong, message in [
        ({**place, "row": 999}, "row is 999; it must be 0 to 95"),
        ({**place, "matrix": "up"}, "matrix is up; an expert has the matrices gate_up and down"),
    ]:
        assert live_page.evaluate(FLIP, [wrong, 0, at]) == message
    sentence = f"nothing predicts position 0 here; choose one from 1 to {len(ids)}"
    assert live_page.evaluate(FLIP, [place, 1, 0]) == sentence
    assert live_page.evaluate(FLIP, [place, 136, at]) == "bit is 136; a block has the bits 0 to 135"
    assert live_page.evaluate(logits, ids) == before
