"""Norm, q/k/v projections, rotation and cache append of a decode step, against float64 and the
model."""

from dataclasses import dataclass

import pytest
import torch
from oss_kernels.qkv_rope import reference
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.model import Recorder
from oss_lab.model.attention import Attention
from oss_lab.model.hook import in_layer
from oss_lab.model.past import Span
from oss_lab.model.rope import rotation

kernel = pytest.importorskip("oss_kernels.qkv_rope.kernel", reason="triton is not installed")
EPS = 1e-5

# All in float32 until the store. A product sums as in `test_linear.py`; norm, bias and rotation add
# a few steps. Every step errs by at most 2^-24 of the sum of magnitudes.
SUM = 48 * 2**-24


@dataclass
class DecodeStep:
    """The inputs of one decode step, with caches full of NaN."""

    x: Tensor
    norm_scale: Tensor
    weight: Tensor
    bias: Tensor
    cos: Tensor
    sin: Tensor
    keys: Tensor
    values: Tensor

    def run(self, operation, at: Tensor) -> Tensor:
        given = self.x, self.norm_scale, EPS, self.weight, self.bias, self.cos, self.sin
        return operation(*given, self.keys, self.values, at)

    def select_rows(self, which) -> "DecodeStep":
        """Some rows of the batch, with separate caches."""
        batched = (self.x, self.cos, self.sin, self.keys, self.values)
        x, cos, sin, keys, values = (each[which].clone() for each in batched)
        return DecodeStep(x, self.norm_scale, self.weight, self.bias, cos, sin, keys, values)


def make(rng, device, dtype, batch=2, hidden=96, heads=4, kv_heads=2, head_dim=16, capacity=5):
    def normal(*shape):
        return torch.randn(shape, generator=rng).to(device, dtype)

    config = ModelConfig(hidden_size=hidden, head_dim=head_dim)
    positions = torch.randint(0, 131_072, (batch, 1), generator=rng)
    cos, sin = (each[:, 0, 0].to(device) for each in rotation(config, positions, dtype))
    select_rows = (heads + 2 * kv_heads) * head_dim
    cache = torch.full((2, batch, kv_heads, capacity, head_dim), float("nan"))
    keys, values = cache.to(device, dtype).unbind()
    weight, bias = normal(select_rows, hidden), normal(select_rows)
    return DecodeStep(normal(batch, hidden), normal(hidden), weight, bias, cos, sin, keys, values)


def compute_in_float64(step: DecodeStep) -> tuple[Tensor, Tensor]:
    """The definition: all heads [batch head head_dim], q and k rotated, and the sum of magnitudes
    for every number."""
    x, scale, weight = step.x.double(), step.norm_scale.double(), step.weight.double()
    normed = x / (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt() * scale
    terms = normed[:, None, :] * weight
    head_dim = step.cos.shape[-1]
    half, turned = head_dim // 2, len(weight) // head_dim - step.values.shape[1]
    plain = (terms.sum(-1) + step.bias.double()).unflatten(1, (-1, head_dim))
    size = (terms.abs().sum(-1) + step.bias.double().abs()).unflatten(1, (-1, head_dim))
    heads, magnitude = plain.clone(), size.clone()
    cos, sin = step.cos.double()[:, :half], step.sin.double()[:, half:]
    for head in range(turned):
        a, b = plain[:, head, :half], plain[:, head, half:]
        heads[:, head] = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
        a, b = size[:, head, :half], size[:, head, half:]
        cos_sin = cos.abs(), sin.abs()
        magnitude[:, head] = torch.cat(
            (a * cos_sin[0] + b * cos_sin[1], b * cos_sin[0] + a * cos_sin[1]), -1
        )
    return heads, magnitude


def read_back(step: DecodeStep, q: Tensor, slots: Tensor) -> Tensor:
    """q, and the keys and values written to these slots: all heads [batch head head_dim]."""
    select_rows = torch.arange(len(slots))
    return torch.cat(
        (q, step.keys[select_rows, :, slots], step.values[select_rows, :, slots]), dim=1
    )


def count_wrong(out: Tensor, step: DecodeStep, rounding) -> int:
    """How many numbers are further off than one rounding and float32 explain."""
    heads, magnitude = compute_in_float64(step)
    u = rounding[step.x.dtype]
    return int((~((out.double() - heads).abs() <= u * heads.abs() + 2 * SUM * magnitude)).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "sizes",
    [
        {"batch": 1},
        {"batch": 3, "heads": 8, "hidden": 33},
        {"head_dim": 64, "heads": 2, "kv_heads": 1},
        {"hidden": 2880, "heads": 1, "kv_heads": 1},
        {"head_dim": 12, "heads": 3, "kv_heads": 1},
    ],
    ids=str,
)
def test_the_kernel_computes_the_definition(rng, device, rounding, dtype, sizes):
    step = make(rng, device, dtype, **sizes)
    slots = torch.randint(0, 5, (len(step.x),), generator=rng).to(device)
    q = step.run(kernel.qkv_rope, slots.int())
    out = read_back(step, q, slots)
    assert out.dtype == dtype
    assert count_wrong(out, step, rounding) == 0
    # Only these slots are written.
    for cache in (step.keys, step.values):
        select_rows = torch.arange(len(slots))
        assert cache[select_rows, :, slots].isfinite().all()
        cache[select_rows, :, slots] = float("nan")
        assert cache.isnan().all()


@pytest.mark.parametrize("fault", ["turned back", "next position", "halves exchanged", "no scale"])
def test_the_tolerance_detects_typical_errors(rng, device, rounding, fault):
    step = make(rng, device, torch.bfloat16)
    right = step.select_rows(slice(None))
    if fault == "turned back":
        step.sin = -step.sin
    elif fault == "next position":
        positions = torch.tensor([[7], [8]])
        config = ModelConfig(head_dim=16)
        right.cos, right.sin = (e[:, 0, 0] for e in rotation(config, positions, torch.bfloat16))
        step.cos, step.sin = (e[:, 0, 0] for e in rotation(config, positions + 1, torch.bfloat16))
    elif fault == "halves exchanged":
        step.weight = step.weight.unflatten(0, (-1, 2, 8)).flip(1).flatten(0, 2).contiguous()
    else:
        step.norm_scale = torch.ones_like(step.norm_scale)
    slots = torch.tensor([1, 3])
    out = read_back(step, step.run(kernel.qkv_rope, slots.to(device)), slots)
    assert count_wrong(out, right, rounding) > 16


def test_eps_matters_for_small_activations(rng, device, rounding):
    step = make(rng, device, torch.float32)
    step.x *= 1e-3
    slots = torch.tensor([1, 3], device=device)
    assert (
        count_wrong(read_back(step, step.run(kernel.qkv_rope, slots), slots), step, rounding) == 0
    )


def test_all_rows_may_use_one_slot(rng, device, rounding):
    step = make(rng, device, torch.float32, batch=3)
    q = step.run(kernel.qkv_rope, torch.tensor(4, dtype=torch.int32, device=device))
    assert count_wrong(read_back(step, q, torch.full((3,), 4)), step, rounding) == 0


@pytest.mark.parametrize("operation", [kernel.qkv_rope, reference.qkv_rope])
def test_a_slot_outside_the_cache_is_not_written(rng, device, operation):
    step = make(rng, device, torch.float32, batch=3, capacity=5)
    q = step.run(operation, torch.tensor([-1, 5, 2], dtype=torch.int32, device=device))
    assert q.isfinite().all()
    for cache in (step.keys, step.values):
        assert cache[2, :, 2].isfinite().all()
        assert int(cache.isfinite().sum()) == cache[2, :, 2].numel()


def test_the_cache_may_be_a_part_of_a_larger_buffer(rng, device, rounding):
    step = make(rng, device, torch.float32)
    larger = [torch.full((3, 4, 9, 16), float("nan"), device=device) for _ in range(2)]
    step.keys, step.values = larger[0][1:, 1:3, 2:7], larger[1][:2, 2:, 4:]
    slots = torch.tensor([0, 4], device=device)
    out = read_back(step, step.run(kernel.qkv_rope, slots), slots)
    assert count_wrong(out, step, rounding) == 0
    assert [int(each.isfinite().sum()) for each in larger] == [2 * 2 * 16] * 2


def test_a_row_does_not_depend_on_its_neighbors(rng, device):
    step = make(rng, device, torch.float32, batch=3)
    slots = torch.tensor([2, 0, 1], device=device)
    parts = [step.select_rows(slice(n, n + 1)) for n in range(3)]
    alone = [
        read_back(part, part.run(kernel.qkv_rope, slots[n, None]), slots[n, None])
        for n, part in enumerate(parts)
    ]
    together = read_back(step, step.run(kernel.qkv_rope, slots), slots)
    assert torch.equal(together, torch.cat(alone))


def test_an_empty_batch_writes_nothing(rng, device):
    step = make(rng, device, torch.float32).select_rows(slice(0, 0))
    q = step.run(kernel.qkv_rope, torch.empty(0, dtype=torch.int32, device=device))
    assert q.shape == (0, 4, 16)


def test_the_kernel_and_the_models_roundings_differ_as_derived(rng, device, rounding):
    """The reference rounds the normed x (u for every term), the projection, both products and the
    sum. |a cos| + |b sin| bounds the magnitude in the last four roundings. The kernel rounds
    once."""
    step = make(rng, device, torch.bfloat16, batch=4)
    other = step.select_rows(slice(None))
    slots = torch.tensor([0, 1, 2, 3], device=device)
    ours = read_back(step, step.run(kernel.qkv_rope, slots), slots).double()
    models = read_back(other, other.run(reference.qkv_rope, slots), slots).double()
    _, magnitude = compute_in_float64(step)
    u = 2**-8
    assert ((ours - models).abs() <= (4 * u + rounding[torch.bfloat16]) * magnitude).all()
    assert not torch.equal(ours, models)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_equals_the_models_attention_before_the_scores(rng, device, dtype):
    config = ModelConfig(hidden_size=96, head_dim=16, num_attention_heads=8, num_key_value_heads=2)
    attention = Attention(config).to(device, dtype)
    attention.norm.scale.data = torch.randn(96, generator=rng).to(device, dtype)
    x = torch.randn(3, 1, 96, generator=rng).to(device, dtype)
    positions = torch.tensor([[5], [130], [99_000]], device=device)
    cos, sin = rotation(config, positions, dtype)
    names = ("attn.q_rot", "attn.k_rot", "attn.v")
    recorder = Recorder(names)
    with torch.no_grad():
        attention(x, cos, sin, None, lambda k, v: (Span(0, 3, k, v),), in_layer(recorder, 0))
        keys, values = torch.zeros(2, 3, 2, 4, 16, dtype=dtype, device=device).unbind()
        q = reference.qkv_rope(
            *(x[:, 0], attention.norm.scale, config.rms_norm_eps),
            *(attention.qkv.weight, attention.qkv.bias, cos[:, 0, 0], sin[:, 0, 0]),
            *(keys, values, torch.tensor(2, device=device)),
        )
    for name, ours in zip(names, (q, keys[:, :, 2], values[:, :, 2]), strict=True):
        assert torch.equal(ours, recorder.seen[name, 0][0][:, :, 0]), name


def test_the_reference_follows_the_definition_in_float64(rng):
    step = make(rng, "cpu", torch.float64)
    slots = torch.tensor([1, 1])
    out = read_back(step, step.run(reference.qkv_rope, slots), slots)
    torch.testing.assert_close(out, compute_in_float64(step)[0], rtol=1e-12, atol=1e-12)
