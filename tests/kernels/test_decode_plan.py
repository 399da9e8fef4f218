"""The compiled decode step of a whole model gives the reference's logits and recordings."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import cast
from weakref import ref

import pytest
import torch
from oss_kernels import backends

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.decode_step import plan as step_plan

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.load import load_model
from oss_lab.config import GPT_OSS_NANO
from oss_lab.engine.cache import KVCache
from oss_lab.engine.kernels import KernelEngine
from oss_lab.engine.layer_cache import GROWTH
from oss_lab.engine.read import forward, prefill
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow
from oss_lab.hooks.points import ALWAYS
from oss_lab.hooks.selection import Selection
from oss_lab.model import Recorder, no_hooks
from oss_lab.model.transformer import Block, Transformer

MARGIN = 1e-5  # of router logits: below it, rounding may decide
NANO = GPT_OSS_NANO
INITIAL = NANO.initial_context_length


@pytest.fixture(scope="module")
def nano():
    return load_model(find_checkpoint("nano"))


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """The length of the cache at every call of the compiled step."""
    seen: list[int] = []
    call = step_plan.DecodeStep.__call__

    def record(self, token, length):
        seen.append(length)
        return call(self, token, length)

    monkeypatch.setattr(step_plan.DecodeStep, "__call__", record)
    return seen


def cpu_engine(model: Transformer) -> KernelEngine:
    return KernelEngine(model, backends.load_backend("cpu"))


def run_reference(model: Transformer, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [1 seq vocab], and whether a router has a near-tie at a position or before [seq]."""
    watch = Recorder(["moe.router_logits"])
    logits = model(ids, hooks=watch)
    layers = torch.stack([values[-1] for values in watch.seen.values()])
    best = layers.topk(model.config.experts_per_token + 1).values
    return logits, (best[..., :-1] - best[..., 1:] < MARGIN).any(-1).any(0)[0].cumsum(-1) > 0


def untied_ids(rng: torch.Generator, model: Transformer, seq: int) -> torch.Tensor:
    """Random tokens [1 seq] for which no router has a near-tie. A position with one is dropped."""
    ids = torch.randint(0, model.config.vocab_size, (1, seq + 40), generator=rng)
    while (tied := run_reference(model, ids)[1]).any():
        at = int(tied.int().argmax())
        ids = torch.cat((ids[:, :at], ids[:, at + 1 :]), dim=1)
    assert ids.shape[1] >= seq
    return ids[:, :seq]


def decode(engine: KernelEngine, cache: KVCache, ids: torch.Tensor) -> torch.Tensor:
    """Logits after each of these tokens, read one at a time."""
    return torch.cat([engine.forward(token[:, None], cache) for token in ids.unbind(1)], dim=1)


def assert_same(got: torch.Tensor, want: torch.Tensor) -> None:
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


# Around nano's window and 20b's, across a growth of the cache, and past nano's initial context.
@pytest.mark.parametrize("context", [1, 31, 32, 33, 127, 128, 129, 130, GROWTH + 1, 2 * INITIAL])
def test_logits_after_a_context(rng, nano, steps, context):
    ids, engine, cache = untied_ids(rng, nano, context + 3), cpu_engine(nano), KVCache(NANO)
    for part in ids[:, :context].split(128, dim=1):
        engine.forward(part, cache, last=0)
    got = decode(engine, cache, ids[:, context:])
    assert steps == [context, context + 1, context + 2]
    assert cache.length == context + 3
    assert_same(got, nano(ids)[:, context:])


def test_a_cache_that_grows_and_is_truncated(rng, nano, steps):
    ids, engine, cache = untied_ids(rng, nano, 2 * GROWTH + 20), cpu_engine(nano), KVCache(NANO)
    want = nano(ids)
    engine.forward(ids[:, :20], cache, last=0)
    assert_same(decode(engine, cache, ids[:, 20:]), want[:, 20:])
    cache.truncate(25)
    assert_same(decode(engine, cache, ids[:, 25:40]), want[:, 25:40])
    assert len(steps) == 2 * GROWTH + 15


def test_a_cache_that_keeps_windows(rng, nano, steps):
    """Sliding layers drop their first slots twice."""
    ids, engine = untied_ids(rng, nano, 2 * GROWTH + 80), cpu_engine(nano)
    cache = KVCache(NANO, history="window")
    engine.forward(ids[:, :20], cache, last=0)
    assert_same(decode(engine, cache, ids[:, 20:]), nano(ids)[:, 20:])
    assert max(layer.first for layer in cache.layers) > GROWTH
    assert len(steps) == 2 * GROWTH + 60


def test_other_cases_take_the_other_path(rng, nano, steps):
    """Nothing cached yet, a fork, its parent, two rows, padding, no logits, other hooks."""
    ids, engine, cache = untied_ids(rng, nano, 30), cpu_engine(nano), KVCache(NANO)
    want = nano(ids)
    assert_same(decode(engine, cache, ids[:, :1]), want[:, :1])
    engine.forward(ids[:, 1:20], cache, last=0)
    fork = cache.fork(at=10)
    assert_same(decode(engine, fork, ids[:, 10:12]), want[:, 10:12])
    pair, short = KVCache(NANO, 2), KVCache(NANO, padding=torch.tensor([2]))
    engine.forward(ids[:, :20].expand(2, -1), pair)
    assert_same(engine.forward(ids[:, 20:21].expand(2, -1), pair)[1:], want[:, 20:21])
    engine.forward(torch.cat((ids[:, :2], ids[:, :20]), dim=1), short)
    assert_same(decode(engine, short, ids[:, 20:21]), want[:, 20:21])
    assert engine.forward(ids[:, 20:21], cache, last=0).shape == (1, 0, NANO.vocab_size)
    watch = Recorder(["resid.post"])
    assert_same(engine.forward(ids[:, 21:22], cache, hooks=watch), want[:, 21:22])
    assert len(watch.seen) == NANO.num_hidden_layers
    assert not steps
    # The parent writes after the slots that its fork reads, so it may use the step.
    assert_same(decode(engine, cache, ids[:, 22:24]), want[:, 22:24])
    assert steps == [22, 23]
    with pytest.raises(IndexError):
        engine.forward(torch.tensor([[NANO.vocab_size]]), cache)
    assert cache.length == 24


@pytest.mark.parametrize("history", ["full", "window"])
def test_the_last_row_of_a_batch_has_no_padding(rng, nano, steps, history):
    """Its slots move to the left, so it takes the step that a single sequence takes."""
    ids, engine = untied_ids(rng, nano, 60), cpu_engine(nano)
    cache = KVCache(NANO, 3, padding=torch.tensor([0, 7, 9]), history=history)
    padded = torch.cat([ids.new_zeros(1, 7), ids[:, :50]], dim=1).expand(3, -1)
    engine.forward(padded, cache, last=0)
    cache.select([0, 1])
    assert (cache.length, steps) == (57, [])
    cache.select([1])
    got = decode(engine, cache, ids[:, 50:])
    assert steps == list(range(50, 60))
    assert_same(got, nano(ids)[:, 50:])


def test_weights_that_change(rng):
    """In place, by assignment to .data, as a new parameter and in a new module. Each is found."""
    model = load_model(find_checkpoint("nano"))
    engine = cpu_engine(model)
    ids, mlp = untied_ids(rng, model, 12), cast(Block, model.block[0]).mlp
    attn = cast(Block, model.block[1]).attn
    scales = mlp.mlp1_weight.get_buffer("scales")
    halved = deepcopy(attn.qkv)
    halved.weight.data /= 2
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: attn.sinks.data.add_(3),
        lambda: setattr(attn.sinks, "data", attn.sinks.data - 6),
        lambda: setattr(attn, "sinks", torch.nn.Parameter(attn.sinks + 2, requires_grad=False)),
        lambda: scales.add_(1),
        lambda: setattr(attn, "qkv", halved),
    ]
    before = None
    for change in changes:
        change()
        cache = KVCache(NANO)
        engine.forward(ids[:, :-1], cache, last=0)
        want, tied = run_reference(model, ids)
        got = engine.forward(ids[:, -1:], cache)
        assert before is None or (want[:, -1:] - before).abs().max() > 0.01
        before = want[:, -1:]
        assert tied[-1] or (got - before).abs().max() <= 1e-5 * before.abs().max()


def test_a_cache_of_another_model_is_left_to_the_operations(rng, nano):
    """Another dtype, number of heads or layers, or a smaller window: no address fits."""
    ids, engine, cache = untied_ids(rng, nano, 40), cpu_engine(nano), KVCache(NANO)
    engine.forward(ids[:, :39], cache, last=0)
    layer = cache.layers[-1]
    tail, plan = layer.tail, engine.plan
    assert plan is not None
    assert tail is not None
    for other in (tail.bfloat16(), tail[:, :, :1], tail[..., :8]):
        layer.tail = other
        assert plan.decode(ids[:, 39:], cache, None, no_hooks) is None
    layer.tail, cache.layers[0].first = tail, 20
    assert plan.decode(ids[:, 39:], cache, None, no_hooks) is None
    cache.layers[0].first = 0
    cache.layers.append(layer)
    assert plan.decode(ids[:, 39:], cache, None, no_hooks) is None
    cache.layers.pop()
    assert plan.decode(ids[:, 39:], cache, None, no_hooks) is not None


def test_a_cache_that_is_dropped_is_not_kept(rng, nano, steps):
    ids, engine, cache = untied_ids(rng, nano, 12), cpu_engine(nano), KVCache(NANO)
    engine.forward(ids[:, :10], cache, last=0)
    decode(engine, cache, ids[:, 10:])
    tails = [ref(layer.tail) for layer in cache.layers if layer.tail is not None]
    assert (len(tails), steps) == (4, [10, 11])
    del cache
    assert [tail() for tail in tails] == [None] * 4


def test_options_and_layers_that_change(rng):
    """An option of one layer, then of all; a weight that torch computes; fewer layers."""
    model = load_model(find_checkpoint("nano"))
    engine, ids = cpu_engine(model), untied_ids(rng, model, 12)
    blocks = [cast(Block, block) for block in model.block]
    changes: list[Callable[[], object]] = [
        lambda: setattr(blocks[2].mlp, "limit", 0.5),
        lambda: [setattr(block.mlp, "limit", 0.5) for block in blocks],
        lambda: torch.nn.utils.parametrize.register_parametrization(
            blocks[0].attn.qkv, "bias", torch.nn.Tanh()
        ),
        lambda: model.block.__delitem__(-1),
    ]
    for change in changes:
        change()
        cache = KVCache(NANO)
        engine.forward(ids[:, :-1], cache, last=0)
        want, tied = run_reference(model, ids)
        got = engine.forward(ids[:, -1:], cache)
        assert tied[-1] or (got - want[:, -1:]).abs().max() <= 1e-5 * want.abs().max()


def record(engine, ids: torch.Tensor, prompt: int, selection: Selection):
    """Record a prompt and then tokens read one at a time."""
    row = BatchRow(Request(tuple(ids[0].tolist()), selection=selection), 0, engine)
    cache = KVCache(NANO)
    for _ in prefill(engine, [row], ids[:, :prompt], cache):
        pass
    for token in ids[:, prompt:].unbind(1):
        forward(engine, token[:, None], cache, [row], 1, is_prefill=False)
    assert row.recording is not None
    return row.recording.tensors()


@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_the_default_points_are_recorded(rng, nano, steps, layers):
    ids, selection = untied_ids(rng, nano, 40), Selection(ALWAYS, layers)
    got = record(cpu_engine(nano), ids, 30, selection)
    want = record(ReferenceEngine(nano), ids, 30, selection)
    assert len(steps) == 10
    assert got.keys() == want.keys()
    for key, x in want.items():
        assert got[key].dtype == x.dtype
        assert got[key].shape == x.shape
        assert (got[key].double() - x.double()).abs().max() <= 2e-5 * x.double().abs().max(), key


@pytest.mark.parametrize(
    "selection",
    [
        Selection((*ALWAYS, "resid.post")),
        Selection(("attn.sink_mass",), heads=(2,)),
        Selection(("moe.margin",), positions=(31, 35)),
    ],
)
def test_other_selections_take_the_other_path(rng, nano, steps, selection):
    ids = untied_ids(rng, nano, 40)
    got = record(cpu_engine(nano), ids, 30, selection)
    want = record(ReferenceEngine(nano), ids, 30, selection)
    assert not steps
    assert {key: x.shape for key, x in got.items()} == {key: x.shape for key, x in want.items()}


def test_a_failed_step_is_not_recorded(rng, nano):
    ids, engine, cache = untied_ids(rng, nano, 8), cpu_engine(nano), KVCache(NANO)
    row = BatchRow(Request((1,), selection=Selection(ALWAYS)), 0, engine)
    forward(engine, ids[:, :6], cache, [row], 1)
    for token in (ids[:, 6:7], torch.tensor([[NANO.vocab_size]]), ids[:, 7:]):
        if token.max() < NANO.vocab_size:
            forward(engine, token, cache, [row], 1, is_prefill=False)
            continue
        with pytest.raises(IndexError):
            forward(engine, token, cache, [row], 1, is_prefill=False)
    assert row.recording is not None
    kept = row.recording.tensors()
    assert {len(x) for (name, _), x in kept.items() if not name.startswith("out.")} == {8}
    assert {len(x) for (name, _), x in kept.items() if name.startswith("out.")} == {3}


@pytest.fixture(scope="module")
def bfloat16_model():
    """A random model in bfloat16 with head_dim 64, as 20b has."""
    config = replace(
        NANO, hidden_size=128, intermediate_size=160, head_dim=64, num_attention_heads=8,
        num_key_value_heads=1, num_experts=8, vocab_size=300,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    model = Transformer(config)
    for name, x in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("blocks"):
            x.copy_(torch.randint(0, 256, x.shape, dtype=torch.uint8, generator=generator))
        elif name.endswith("scales"):
            x.fill_(122)
        else:
            x.data = torch.randn(x.shape, generator=generator) / (x.shape[-1] ** 0.5)
    return model.to(torch.bfloat16).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_bfloat16(rng, bfloat16_model, steps, monkeypatch, set_threads, threads):
    """As close to the model in float32 as the reference in bfloat16 is."""
    monkeypatch.setattr(step_plan, "FEW_BYTES", 0)
    set_threads(threads)
    model = bfloat16_model
    ids = torch.randint(0, model.config.vocab_size, (1, 150), generator=rng)
    engine, cache = cpu_engine(model), KVCache(model.config)
    engine.forward(ids[:, :100], cache, last=0)
    got = decode(engine, cache, ids[:, 100:])
    assert len(steps) == 50
    reference = model(ids)[:, 100:]
    wide = Transformer(model.config)
    wide.load_state_dict(model.state_dict())
    want = wide.eval().requires_grad_(False)(ids)[:, 100:]

    def error(logits: torch.Tensor) -> float:
        """The median over positions: a near-tie of experts changes a few of them."""
        return float(((logits.float() - want).norm(dim=-1) / want.norm(dim=-1)).median())

    assert got.dtype == torch.bfloat16
    assert error(got) <= 1.2 * error(reference) < 0.05
