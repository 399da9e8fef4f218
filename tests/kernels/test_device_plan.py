"""The decode plan for a GPU: its logits are the reference model's, its host never waits, and no
argument of a launch changes while the text grows."""

import pytest
import torch

from oss_lab.config import GPT_OSS_20B, GPT_OSS_120B, ModelConfig
from oss_lab.engine.cache import KVCache
from oss_lab.model import Recorder
from oss_lab.model.transformer import Transformer

pytest.importorskip("triton", reason="triton is not installed")
from oss_kernels.launch import Launch

from oss_lab.engine import device_plan
from oss_lab.engine.device_cache import load_cache
from oss_lab.engine.device_plan import make_device_plan, read_points

CAPACITY, SPLITS = 300, 2


def start(model, prompts, **options):
    """A plan that continues these prompts, and each row's reference cache and next token."""
    plan = make_device_plan(model, len(prompts), CAPACITY, splits=SPLITS, **options)
    rows, last = [], []
    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    padded = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    padding = padding if padding.any() else None
    cache = KVCache(model.config, len(prompts), padding=padding, history="window")
    model(torch.tensor(padded)[:, :-1], cache, last=0)
    for prompt in prompts:
        rows.append(KVCache(model.config))
        model(torch.tensor([prompt[:-1]]), rows[-1], last=0)
        last.append(prompt[-1])
    assert load_cache(plan, cache)
    plan.buffers.cursor.tokens.copy_(torch.tensor(last))
    return plan, rows


def compare(model, plan, rows, steps: int) -> list[list[int]]:
    """Run greedy steps. Returns the ids that each row read."""
    seen: list[list[int]] = [[] for _ in rows]
    for _ in range(steps):
        ids = plan.buffers.cursor.tokens.tolist()
        plan.step()
        for row, (id, cache) in enumerate(zip(ids, rows, strict=True)):
            seen[row].append(id)
            wanted = model(torch.tensor([[id]]), cache)[0, -1]
            logits = plan.buffers.sampled.logits[row].cpu()
            torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
            assert int(plan.buffers.cursor.tokens[row]) == int(logits.argmax())
            logprob = float(plan.buffers.sampled.logprobs[row])
            assert abs(logprob - float(wanted.log_softmax(-1).max())) < 1e-4
    return seen


def test_two_rows_of_unequal_lengths_have_the_reference_models_logits(rng, tiny_model):
    prompts = [torch.randint(0, 70, (n,), generator=rng).tolist() for n in (9, 3)]
    plan, rows = start(tiny_model, prompts)
    seen = compare(tiny_model, plan, rows, 2)
    assert plan.buffers.cursor.positions.tolist() == [10, 4]
    for row, prompt in enumerate(prompts):
        at = len(prompt) - 1
        assert plan.buffers.cursor.text[row, at : at + 2].tolist() == seen[row]


@pytest.mark.slow
def test_a_greedy_text_has_the_reference_models_logits_at_every_step(rng, tiny_model):
    """Twice around the ring of the sliding layer, and past the first split of 128 keys."""
    prompt = torch.randint(0, 70, (120,), generator=rng).tolist()
    plan, rows = start(tiny_model, [prompt])
    seen = compare(tiny_model, plan, rows, 15)
    assert len(set(seen[0])) > 5, "the text repeats a few tokens only"


def test_the_recorded_points_are_the_models(rng, tiny_model):
    prompt = torch.randint(0, 70, (8,), generator=rng).tolist()
    plan, _ = start(tiny_model, [prompt], record=True)
    plan.step()
    found, sampled = read_points(tiny_model, plan), plan.buffers.sampled
    names = ["attn.sink_mass", "moe.router_logits", "moe.expert_ids", "moe.expert_weights"]
    watch = Recorder([*names, "out.logits"])
    tiny_model(torch.tensor([prompt]), hooks=watch)
    for layer in range(tiny_model.config.num_hidden_layers):
        for name in names:
            theirs = watch.seen[name, layer][0]
            theirs = theirs[0, :, -1] if name == "attn.sink_mass" else theirs[0, -1]
            torch.testing.assert_close(
                found[name][layer, 0].cpu(), theirs.to(found[name].dtype),
                rtol=1e-4, atol=1e-5,
            )  # fmt: skip
    best = watch.seen["out.logits", None][0][0, -1].log_softmax(-1).topk(20)
    assert sampled.top_ids is not None
    assert sampled.top_logprobs is not None
    assert torch.equal(sampled.top_ids[0].cpu(), best.indices)
    torch.testing.assert_close(sampled.top_logprobs[0].cpu(), best.values)


def test_a_cache_that_does_not_fit_is_not_loaded(tiny_model):
    """Another number of rows, no room, a row that has not begun, other keys, or dropped keys."""
    plan = make_device_plan(tiny_model, 2, 8, splits=SPLITS)
    assert not load_cache(plan, KVCache(tiny_model.config))
    assert not load_cache(plan, KVCache(tiny_model.config, 2, padding=torch.tensor([0, 1])))
    cache = KVCache(tiny_model.config, 2)
    tiny_model(torch.zeros(2, 7, dtype=torch.int64), cache, last=0)
    assert load_cache(plan, cache)
    assert plan.buffers.cursor.positions.tolist() == [7, 7]
    layer = cache.layers[0]
    tail = layer.tail
    assert tail is not None
    for other in (tail.bfloat16(), tail[..., :8], tail[:, :, :0], tail[:, :, :, :6]):
        layer.tail = other
        assert not load_cache(plan, cache)
    layer.tail, layer.first = tail, 4  # the window of 5 needs the slots from 3 on
    assert not load_cache(plan, cache)
    layer.first = 0
    tiny_model(torch.zeros(2, 1, dtype=torch.int64), cache, last=0)
    assert not load_cache(plan, cache)


def make_meta_plan(config: ModelConfig, **options):
    """A plan without memory: reading a value on the host raises an error."""
    with torch.device("meta"):
        model = Transformer(config).bfloat16()
    return make_device_plan(model, options.pop("batch", 1), 8192, **options)


@pytest.mark.parametrize("config", [GPT_OSS_20B, GPT_OSS_120B], ids=["20b", "120b"])
@pytest.mark.parametrize("options", [{}, {"record": True}, {"batch": 8}], ids=str)
def test_a_step_has_few_launches_and_the_host_reads_nothing(config, options):
    plan = make_meta_plan(config, **options)
    with pytest.raises((RuntimeError, NotImplementedError)):
        plan.buffers.cursor.positions.tolist()  # a read on the host would be noticed
    counts = {name: len(part) for name, part in plan.by_part.items()}
    layers = [counts[f"layer {n}"] for n in range(config.num_hidden_layers)]
    assert set(layers[0::2]) == {7}
    assert set(layers[1::2]) == {8}
    assert counts["begin"] + counts["sample"] == 3 + ("record" in options)
    steps: list[list[Launch]] = [[], []]
    for launched in steps:
        plan.step(launched.append)
    assert [id(each) for each in steps[0]] == [id(each) for each in steps[1]]
    total = {GPT_OSS_20B: 183, GPT_OSS_120B: 273}[config] + ("record" in options)
    assert len(steps[0]) == sum(counts.values()) == total
    ending = make_meta_plan(config, **options, sample=False).by_part["sample"]
    assert [each.kernel.__name__ for each in ending] == ["best_of_block_kernel"]


def test_a_step_reads_the_bytes_that_it_must():
    """As in `device_step/README.md`: 3.71 and 5.00 GB of weights, and 28 MB of keys and values
    after 1,024 tokens of 20b.
    """
    for config, weights in ((GPT_OSS_20B, 3.708e9), (GPT_OSS_120B, 5.003e9)):
        plan = make_meta_plan(config)
        assert plan.weights.count_bytes(1, 0) == pytest.approx(weights, rel=2e-3)
    grown = make_meta_plan(GPT_OSS_20B).weights
    assert grown.count_bytes(1, 1024) - grown.count_bytes(1, 0) == 12 * 2048 * (1024 + 128)


def test_the_weights_are_not_copied(tiny_model):
    weights = device_plan.collect_step_weights(tiny_model, 40)
    assert weights.embedding.data_ptr() == tiny_model.embedding.weight.data_ptr()
    layer = tiny_model.block[1]
    assert weights.layers[1].qkv.data_ptr() == layer.attn.qkv.weight.data_ptr()
    blocks = weights.layers[1].experts.down_blocks
    assert blocks.data_ptr() == layer.mlp.mlp2_weight.blocks.data_ptr()


def test_more_rows_than_a_plan_has_are_refused(tiny_model):
    weights = device_plan.collect_step_weights(tiny_model, 40)
    with pytest.raises(ValueError, match="batch is 9; a plan has 1 to 8 rows"):
        device_plan.DevicePlan(weights, 9)
