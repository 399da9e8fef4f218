"""An engine that decodes with a device plan gives the reference's logits, whatever else happens to
the cache between two steps."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from weakref import ref

import pytest
import torch
from oss_kernels import backends
from oss_kernels.attention.reference import attention
from oss_kernels.begin_step.reference import begin_step
from oss_kernels.experts.reference import expert_mlp
from oss_kernels.linear.reference import linear
from oss_kernels.qkv_rope.reference import qkv_rope
from oss_kernels.rms_norm.reference import rms_norm
from oss_kernels.router.reference import router

from oss_lab.config import GPT_OSS_20B, History
from oss_lab.engine.cache import JoinedCaches, KVCache
from oss_lab.engine.kernels import KernelEngine
from oss_lab.engine.read import forward
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow
from oss_lab.hooks.points import ALWAYS
from oss_lab.hooks.selection import Selection
from oss_lab.model import Recorder, no_hooks
from oss_lab.model.transformer import Transformer

pytest.importorskip("triton", reason="triton is not installed")
from oss_kernels.device_step.plan import DevicePlan

from oss_lab.engine import device_decode
from oss_lab.engine.device_decode import DeviceDecode

WINDOW = 5  # of `tiny_model`
HISTORIES: tuple[History, ...] = ("full", "window")


@pytest.fixture
def steps(monkeypatch) -> list[tuple[int, int]]:
    """The rows and the capacity of the plan at every step that a plan takes."""
    seen: list[tuple[int, int]] = []
    step = DevicePlan.step

    def record(self, *run):
        seen.append((len(self.buffers.x), self.weights.capacity))
        step(self, *run)

    few_splits = partial(device_decode.make_device_plan, splits=2)
    monkeypatch.setattr(device_decode, "make_device_plan", few_splits)
    monkeypatch.setattr(device_decode, "CAPACITY", 32)
    monkeypatch.setattr(DevicePlan, "step", record)
    return seen


@pytest.fixture
def fast_steps(monkeypatch, steps) -> list[tuple[int, int]]:
    """`steps`, computed in torch, because Triton's interpreter takes half a second for one."""
    record = DevicePlan.step

    def step(self):
        record(self, lambda launch: None)  # launches nothing
        step_in_torch(self)

    monkeypatch.setattr(DevicePlan, "step", step)
    return steps


def step_in_torch(plan: DevicePlan) -> None:
    """What the launches of a step compute, in the same buffers of keys."""
    weights, it = plan.weights, plan.buffers
    x, cos, sin = begin_step(it.cursor, weights.embedding, weights.cos, weights.sin, WINDOW)
    for layer, cache in zip(weights.layers, it.caches, strict=True):
        slots = it.cursor.full_slots if layer.window is None else it.cursor.ring_slots
        keys, values = cache.unbind()
        q = qkv_rope(
            x, layer.attn_norm, weights.eps, layer.qkv, layer.qkv_bias, cos, sin,
            keys, values, slots,
        )  # fmt: skip
        z = []
        for row, length in enumerate(it.cursor.lengths.tolist()):
            k, v = (each[row : row + 1, :, :length] for each in (keys, values))
            z.append(attention(q[row, None, :, None], k, v, layer.sinks)[0].flatten())
        x = linear(torch.stack(z), layer.out, layer.out_bias, x)
        normed = rms_norm(x, layer.moe_norm, weights.eps)
        chosen, shares, _ = router(normed, layer.router, layer.router_bias, weights.slots)
        x = x + expert_mlp(
            normed, chosen, shares, layer.experts, alpha=weights.alpha, limit=weights.limit
        )
    it.sampled.logits.copy_(
        linear(rms_norm(x, weights.norm, weights.eps), weights.unembedding, None)
    )


def triton_engine(model: Transformer) -> KernelEngine:
    return KernelEngine(model, backends.load_backend("triton"))


class Pair:
    """The same tokens read by the engine and by the reference, each with its own cache."""

    def __init__(self, engine: KernelEngine, prompt: torch.Tensor, **options) -> None:
        self.engine = engine
        self.ours, self.theirs = (KVCache(engine.config, len(prompt), **options) for _ in range(2))
        for cache in (self.ours, self.theirs):
            engine.model(prompt, cache, last=0)

    def read(self, ids: torch.Tensor) -> None:
        """Read tokens [batch seq] one at a time, and compare the logits after each."""
        for token in ids.split(1, dim=1):
            got = self.engine.forward(token, self.ours)
            want = self.engine.model(token, self.theirs)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        assert self.ours.length == self.theirs.length

    def change(self, function: Callable[[KVCache], object]) -> None:
        """Do something to both caches."""
        function(self.ours)
        function(self.theirs)

    def fork(self, at: int | None = None) -> "Pair":
        child = object.__new__(Pair)
        child.engine = self.engine
        child.ours, child.theirs = self.ours.fork(at=at), self.theirs.fork(at=at)
        return child


@pytest.fixture
def ids(rng, tiny_model) -> torch.Tensor:
    return torch.randint(0, 70, (2, 140), generator=rng).to(tiny_model.device)


@pytest.mark.parametrize(("window", "context"), [(WINDOW, 3), (128, 126)])
def test_steps_across_a_window(tiny_model, ids, steps, window, context):
    tiny_model.config = replace(tiny_model.config, sliding_window=window)
    pair = Pair(triton_engine(tiny_model), ids[:1, :context])
    pair.read(ids[:1, context : context + 3])
    assert [rows for rows, _ in steps] == [1] * 3


def test_a_plan_that_is_full_is_made_again(tiny_model, ids, fast_steps, monkeypatch):
    """With twice the capacity, and with the keys of the steps before."""
    monkeypatch.setattr(device_decode, "CAPACITY", 4)
    Pair(triton_engine(tiny_model), ids[:1, :2]).read(ids[:1, 2:6])
    assert fast_steps == [(1, 4), (1, 4), (1, 8), (1, 8)]


def test_the_end_of_the_context_is_left_to_the_operations(tiny_model, ids, fast_steps):
    tiny_model.config = replace(tiny_model.config, rope_scaling_factor=0.25)
    cache, plan = KVCache(tiny_model.config), triton_engine(tiny_model).plan
    tiny_model(ids[:1, :8], cache, last=0)
    assert tiny_model.config.max_context_length == cache.length == 8
    assert isinstance(plan, DeviceDecode)
    assert plan.decode(ids[:1, 8:9], cache, None, no_hooks) is None


def test_rows_with_padding_and_then_one_of_them(tiny_model, ids, fast_steps):
    pair = Pair(triton_engine(tiny_model), ids[:, :8], padding=torch.tensor([0, 6]))
    pair.read(ids[:, 8:10])
    pair.change(lambda cache: cache.select([1]))
    assert pair.ours.length == 4
    pair.read(ids[1:, 10:12])
    assert [rows for rows, _ in fast_steps] == [2, 2, 1, 1]


def test_a_fork_and_its_parent_take_turns(tiny_model, ids, fast_steps):
    """Each step gives the other cache its keys back. Inference mode may come and go."""
    parent = Pair(triton_engine(tiny_model), ids[:1, :4])
    with torch.inference_mode():
        parent.read(ids[:1, 4:6])
    child = parent.fork()
    for n in range(6, 8):
        child.read(ids[1:, n : n + 1])
        with torch.inference_mode():
            parent.read(ids[:1, n : n + 1])
    assert len(fast_steps) == 6


@pytest.mark.parametrize("length", [9, 5, 2])
def test_truncation_by_less_and_more_than_a_window(tiny_model, ids, fast_steps, length):
    """The ring has lost tokens that a shorter cache sees again."""
    pair = Pair(triton_engine(tiny_model), ids[:1, :3])
    pair.read(ids[:1, 3:10])
    pair.change(lambda cache: cache.truncate(length))
    pair.read(ids[1:, :1])
    assert len(fast_steps) == 8


def test_a_cache_of_windows(tiny_model, ids, fast_steps):
    """More steps than two windows, a step that is undone, and then a pass of several tokens."""
    pair = Pair(triton_engine(tiny_model), ids[:1, :9], history="window")
    pair.read(ids[:1, 9:20])
    pair.change(lambda cache: cache.truncate(19))
    pair.read(ids[1:, :1])
    logits = [tiny_model(ids[1:, 1:4], cache) for cache in (pair.ours, pair.theirs)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    assert len(fast_steps) == 12


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_operations_on_several_caches(tiny_model, ids, fast_steps, seed):
    random, engine = Random(seed), triton_engine(tiny_model)
    pairs: list[Pair] = []
    for _ in range(120):
        if len(pairs) < 2:
            padding = random.choice([None, torch.tensor([random.randint(0, 3), 0])])
            prompt = ids[:, : random.randint(4, 12)]
            pairs.append(Pair(engine, prompt, padding=padding, history=random.choice(HISTORIES)))
        pair = random.choice(pairs)
        cache, at = pair.ours, random.randint(min(4, pair.ours.length), pair.ours.length)
        new = ids[: cache.batch, random.randint(0, 60) :]
        match random.choice(["read"] * 4 + ["pass", "fork", "truncate", "select", "drop"]):
            case "read":
                pair.read(new[:, : random.randint(1, 7)])
            case "pass":  # of another engine
                pair.change(partial(tiny_model, new[:, :3]))
            case "fork" if cache.history == "full":
                pairs.append(pair.fork(at))
            case "truncate" if cache.history == "full":
                pair.change(lambda cache, at=at: cache.truncate(at))
            case "select":
                row = random.randrange(cache.batch)
                pair.change(lambda cache, row=row: cache.select([row]))
            case "drop" if len(pairs) > 3 or cache.length > 60:
                pairs.remove(pair)
    assert {rows for rows, _ in fast_steps} == {1, 2}
    assert len(fast_steps) > 100


def test_an_interrupted_step_is_repeated(tiny_model, ids, fast_steps, monkeypatch):
    pair = Pair(triton_engine(tiny_model), ids[:1, :8])
    pair.read(ids[:1, 8:9])

    def interrupt(self, seq):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KVCache, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pair.engine.forward(ids[1:, :1], pair.ours)
    pair.read(ids[:1, 9:10])
    assert len(fast_steps) == 3


def test_a_changed_weight_and_a_changed_option_are_noticed(tiny_model, ids, fast_steps):
    """The keys so far are kept, and the old plan is not."""
    pair = Pair(triton_engine(tiny_model), ids[:1, :4])
    pair.read(ids[:1, 4:5])
    assert pair.ours.holder is not None
    old_plan = ref(pair.ours.holder)
    attn = tiny_model.block[1].attn
    attn.sinks.data = attn.sinks.data + 2
    Pair(pair.engine, ids[1:, :4]).read(ids[1:, 4:5])
    assert old_plan() is None
    pair.read(ids[:1, 5:6])
    for block in tiny_model.block:
        block.mlp.limit = 0.1
    pair.read(ids[:1, 6:7])
    tiny_model.block[0].attn.out.weight.data = attn.out.weight.data.t().contiguous().t()
    assert pair.engine.plan is not None
    assert pair.engine.plan.decode(ids[:1, 7:8], pair.ours, None, no_hooks) is None
    assert len(fast_steps) == 4


def test_rows_record_what_a_step_stores(tiny_model, ids, steps):
    selections = Selection(ALWAYS), Selection(("moe.margin", "out.top_ids"), (1,))

    def record(engine) -> list[dict]:
        requests = [Request((1,), selection=each) for each in selections]
        rows = [BatchRow(request, n, engine) for n, request in enumerate(requests)]
        cache = KVCache(engine.config, 2, padding=torch.tensor([0, 2]))
        forward(ReferenceEngine(tiny_model), ids[:, :6], cache, rows, 1)
        for n in (6, 7):
            forward(engine, ids[:, n : n + 1], cache, rows, 1, is_prefill=False)
        return [row.recording.tensors() for row in rows if row.recording is not None]

    got, want = record(triton_engine(tiny_model)), record(ReferenceEngine(tiny_model))
    assert len(steps) == 2
    for ours, theirs in zip(got, want, strict=True):
        assert ours.keys() == theirs.keys()
        for key, x in theirs.items():
            torch.testing.assert_close(ours[key], x, rtol=1e-4, atol=1e-4)


def test_other_cases_are_left_to_the_operations(tiny_model, ids, fast_steps):
    plan, cache = triton_engine(tiny_model).plan, KVCache(tiny_model.config)
    assert plan is not None
    tiny_model(ids[:1, :3], cache, last=0)
    token, many = ids[:1, :1], KVCache(tiny_model.config, 9)
    assert plan.decode(ids[:1, :2], cache, None, no_hooks) is None
    assert plan.decode(token, cache, 0, no_hooks) is None
    assert plan.decode(token, None, None, no_hooks) is None
    assert plan.decode(token, JoinedCaches([cache]), None, no_hooks) is None
    assert plan.decode(token, cache, None, Recorder(["resid.post"])) is None
    assert plan.decode(token.expand(9, 1), many, None, no_hooks) is None
    tiny_model.requires_grad_(True)
    assert plan.decode(token, cache, None, no_hooks) is None
    with torch.no_grad():
        assert plan.decode(token, cache, None, no_hooks) is not None
    assert len(fast_steps) == 1


def test_a_cache_that_is_dropped_is_not_kept(tiny_model, ids, fast_steps):
    pair = Pair(triton_engine(tiny_model), ids[:1, :4])
    pair.read(ids[:1, 4:5])
    engine, kept = pair.engine, ref(pair.ours)
    del pair
    assert kept() is None
    Pair(engine, ids[1:, :2]).read(ids[1:, 2:3])


def test_the_host_reads_nothing_from_the_device(monkeypatch):
    """On the meta device a read raises an error. Keys are saved, and the plan grows once."""
    monkeypatch.setattr(DevicePlan, "step", lambda self: None)
    monkeypatch.setattr(device_decode, "CAPACITY", 512)
    with torch.device("meta"):
        model = Transformer(replace(GPT_OSS_20B, num_hidden_layers=2, layer_types=())).bfloat16()
        cache, k = KVCache(model.config), torch.empty(1, 8, 300, 64, dtype=torch.bfloat16)
        for layer in range(2):
            cache.extend(layer, k, k, 1)
        cache.advance(300)
        engine, token = triton_engine(model), torch.zeros(1, 1, dtype=torch.int64)
        with torch.no_grad():
            logits = [engine.forward(token, cache, last=1) for _ in range(300)][-1]
    assert (logits.shape, logits.dtype) == ((1, 1, 201_088), torch.bfloat16)
    assert cache.length == 600
    assert cache.layers[0].tail is not None
    with pytest.raises((RuntimeError, NotImplementedError)):
        logits.tolist()
