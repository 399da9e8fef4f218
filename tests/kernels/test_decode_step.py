"""The operations of the CPU's decode step, each against float64 on random inputs."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="numba is not installed")

from numba import njit
from oss_kernels.attention import reference as attention_reference
from oss_kernels.cpu import machine
from oss_kernels.cpu.arrange import arrange_token
from oss_kernels.cpu.bf16_rows import CHUNK, ORDER
from oss_kernels.cpu.e2m1_layouts import LAYOUTS
from oss_kernels.cpu.numbers import as_numpy
from oss_kernels.decode_step.attention import (
    BLOCK,
    attend,
    rotate_and_scale,
    store_key_and_value,
)
from oss_kernels.decode_step.dense import multiply, multiply_and_add, multiply_without_bias
from oss_kernels.decode_step.experts import add_down, gate_and_up
from oss_kernels.decode_step.places import empty_row, find_places
from oss_kernels.decode_step.rms_norm import rms_norm
from oss_kernels.decode_step.router import choose_experts, weigh_experts
from oss_kernels.decode_step.work import claim, count_rows, empty_counters, finish
from oss_kernels.experts.reference import clamped_swiglu
from oss_kernels.linear.reference import linear
from oss_kernels.mxfp4.reference import dequantize
from oss_kernels.rms_norm import reference as norm_reference

DTYPES = (torch.float32, torch.bfloat16)
LIKE = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0)}
STORE = {torch.float32: 2**-24, torch.bfloat16: 2**-8}  # the relative error of one store
ALPHA, LIMIT = np.float32(1.702), np.float32(7)


def arranged(x: torch.Tensor, dtype: torch.dtype) -> np.ndarray:
    """x as a dense product with weights of this dtype wants it."""
    order = ORDER if dtype == torch.bfloat16 else (0,)
    out = empty_row(len(x), len(order), torch.float32)
    out[find_places(len(x), order)] = x.float()
    return out.numpy()


def assert_close(got: torch.Tensor, want: torch.Tensor, store: float, error: float) -> None:
    """Within the rounding of one store, plus `error` of the largest number."""
    assert ((got.double() - want).abs() <= store * want.abs() + error * want.abs().max()).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(rng, dtype):
    x, scale = (torch.randn(96, generator=rng).to(dtype) for _ in range(2))
    places, out = find_places(96, ORDER), empty_row(96, CHUNK, torch.float32)
    rms_norm(as_numpy(x), as_numpy(scale), np.float32(1e-5), out.numpy(), places.numpy())
    want = norm_reference.rms_norm(x.double()[None], scale.double(), 1e-5)[0]
    assert_close(out[places], want, STORE[dtype], 1e-6)
    assert out.count_nonzero() == 96


@pytest.mark.parametrize("order", [(0,), ORDER, *(each.order for each in LAYOUTS.values())])
@pytest.mark.parametrize("columns", [128, 160, 2880])
def test_a_stored_element_is_where_the_products_expect_it(rng, columns, order):
    x = torch.randn(columns, generator=rng)
    out = empty_row(columns, len(order), torch.float32)
    out[find_places(columns, order)] = x
    want = np.zeros((out.numel() // len(order), len(order)), np.float32)
    arrange_token(x.numpy(), np.array(order), want)
    assert (out.numpy() == want.ravel()).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_rows(rng, dtype):
    rows, columns = 40, 160
    x, weight, bias, residual = (
        torch.randn(*shape, generator=rng).to(dtype)
        for shape in ((columns,), (rows, columns), (rows,), (rows,))
    )
    matrix = as_numpy(weight)
    given = arranged(x, dtype), matrix.ctypes.data, columns, LIKE[dtype]
    want = linear(x.double()[None], weight.double(), bias.double())[0]
    out, plain = torch.full_like(bias, torch.nan), torch.full_like(bias, torch.nan)
    for first in range(0, rows, 16):  # in parts, as the threads do
        multiply(*given, as_numpy(bias), first, min(first + 16, rows), as_numpy(out))
        multiply_without_bias(*given, first, min(first + 16, rows), as_numpy(plain))
    assert_close(out, want, STORE[dtype], 1e-6)
    assert_close(plain, want - bias.double(), STORE[dtype], 1e-6)
    total = residual.clone()
    multiply_and_add(*given, as_numpy(bias), 0, rows, as_numpy(total))
    assert torch.equal(total, residual + out)  # the product is rounded first, then the sum


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_rounds_as_the_reference(rng, dtype):
    q, cos, sin = (torch.randn(64, generator=rng).to(dtype) for _ in range(3))
    want = q * cos + q.roll(32) * sin
    key, value = torch.empty_like(q), torch.empty_like(q)
    given = as_numpy(cos), as_numpy(sin)
    store_key_and_value(as_numpy(q), as_numpy(cos), *given, as_numpy(key), as_numpy(value))
    assert_close(key, want.double(), 0 if dtype == torch.bfloat16 else 2**-23, 1e-7)
    assert torch.equal(value, cos)
    out = np.empty(64, np.float32)
    rotate_and_scale(as_numpy(q), *given, out)
    assert_close(torch.from_numpy(out), want.double() / 8, 2**-23, 1e-7)


@njit
def attend_nano(q, keys_at, values_at, like, count, sinks, scores, z, masses):
    attend(16, 4, q, keys_at, values_at, like, count, sinks, scores, z, masses)


@njit
def attend_20b(q, keys_at, values_at, like, count, sinks, scores, z, masses):
    attend(64, 8, q, keys_at, values_at, like, count, sinks, scores, z, masses)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "group", "run"),
    [(torch.float32, 16, 4, attend_nano), (torch.bfloat16, 64, 8, attend_20b)],
)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 127, 128, 129, 4200])
@pytest.mark.parametrize("sink", [-np.inf, 0.5, 30.0])
def test_attention(rng, dtype, head_dim, group, run, count, sink):
    q = 3 * torch.randn(1, group, 1, head_dim, generator=rng)
    k, v = (torch.randn(1, 1, count, head_dim, generator=rng).to(dtype) for _ in range(2))
    sinks = torch.full((group,), sink, dtype=dtype)
    z, lse = attention_reference.attention(q.double(), k.double(), v.double(), sinks.double())
    got, masses = torch.full((group * head_dim,), torch.nan), torch.full((group,), torch.nan)
    scores, queries = torch.full((group * BLOCK,), torch.nan), (q * head_dim**-0.5).ravel()
    keys, values = as_numpy(k), as_numpy(v)
    run(
        queries.numpy(), keys.ctypes.data, values.ctypes.data, LIKE[dtype], count,
        as_numpy(sinks), scores.numpy(), got.numpy(), masses.numpy(),
    )  # fmt: skip
    assert_close(got, z.ravel(), 2e-6, 2e-6)
    assert (masses.double() - (sinks.double() - lse[0, :, 0]).exp()).abs().max() <= 1e-6


@pytest.mark.parametrize("sink", [np.inf, np.nan])
def test_a_sink_that_is_infinite_or_nan_makes_its_head_nan(sink):
    q, k = np.ones(64, np.float32), np.ones((3, 16), np.float32)
    sinks, scores = np.array([0, sink, 1, -np.inf], np.float32), np.empty(4 * BLOCK, np.float32)
    z, masses = np.zeros((4, 16), np.float32), np.zeros(4, np.float32)
    at = k.ctypes.data
    attend_nano(q, at, at, np.float32(0), 3, sinks, scores, z.ravel(), masses)
    assert np.isnan(z).all(1).tolist() == np.isnan(masses).tolist() == [False, True, False, False]
    assert np.isfinite(z[[0, 2, 3]]).all()


def test_the_choice_of_experts(rng):
    logits = torch.randn(32, generator=rng)
    for slots in (1, 4, 32):
        ids, weights = np.full(slots, -1), np.full(slots, np.nan, np.float32)
        margin = choose_experts(logits.numpy(), ids)
        best = logits.topk(min(slots + 1, 32))
        assert ids.tolist() == best.indices[:slots].tolist()
        assert margin == (best.values[-2] - best.values[-1] if slots < 32 else np.inf)
        weigh_experts(logits.numpy(), ids, weights)
        assert_close(torch.from_numpy(weights), best.values[:slots].double().softmax(-1), 1e-6, 0)


def test_equal_logits_are_in_the_order_of_their_experts():
    ids = np.full(3, -1)
    assert choose_experts(np.array([1, 5, 5, 0, 1, 1], np.float32), ids) == 0
    assert ids.tolist() == [1, 2, 0]
    choose_experts(np.array([1, 5, np.nan, 6], np.float32), ids)
    assert ids.tolist() == [2, 3, 1]


def run_expert(path: machine.InstructionSet):
    """An expert in two calls, compiled for a path."""

    @njit
    def run(x_at, first, second, groups, bias, act_at, act, places, weight, sums, down_bias):
        for begin in range(0, places.size, 40):
            end = min(begin + 40, places.size)
            gate_and_up(
                path, x_at, first[0], first[1], groups[0], bias, begin, end,
                ALPHA, LIMIT, act, places,
            )  # fmt: skip
        add_down(path, act_at, second[0], second[1], groups[1], down_bias, weight, 3, sums)

    return run


@pytest.mark.parametrize("path", machine.list_paths())
def test_an_expert(rng, random_mxfp4: Callable[..., tuple[torch.Tensor, torch.Tensor]], path):
    dtype = torch.bfloat16 if path == "avx512_bf16" else torch.float32
    hidden, width, layout = 160, 96 if LAYOUTS[path].groups < 4 else 192, LAYOUTS[path]
    gate_up = random_mxfp4(2 * width, groups=hidden // 32, low=120, high=126)
    down = random_mxfp4(hidden, groups=width // 32, low=120, high=126)
    x, bias, down_bias = (
        torch.randn(size, generator=rng).to(dtype) for size in (hidden, 2 * width, hidden)
    )
    kept = torch.uint16 if layout.bits == 16 else torch.float32
    given, act = (empty_row(size, layout.elements, kept) for size in (hidden, width))
    stored = as_numpy(x) if layout.bits == 16 else x.float().numpy()
    given.numpy()[find_places(hidden, layout.order).numpy()] = stored
    places, sums = find_places(width, layout.order), np.zeros(hidden - 3, np.float32)
    packed = [as_numpy(each) for each in (*gate_up, *down)]
    at = [each.ctypes.data for each in packed]
    run_expert(path)(
        given.data_ptr(), (at[0], at[1]), (at[2], at[3]), (hidden // 32, width // 32),
        as_numpy(bias), act.data_ptr(), act.numpy(), places.numpy(), np.float32(0.3), sums,
        as_numpy(down_bias),
    )  # fmt: skip
    wide = torch.float64
    both = dequantize(*gate_up, wide) @ x.to(wide) + bias.to(wide)
    own = clamped_swiglu(both[None], float(ALPHA), float(LIMIT))[0]
    found = torch.from_numpy(act.numpy()[places.numpy()])
    found = found.view(torch.bfloat16) if layout.bits == 16 else found
    assert_close(found, own, STORE[dtype], 2e-6)
    want = 0.3 * (dequantize(*down, wide) @ found.to(wide) + down_bias.to(wide))
    assert_close(torch.from_numpy(sums), want[3:], 2e-6, 2e-6)


@njit(nogil=True)
def count_up(counters, items, seen):
    done = 0
    item = claim(counters)
    while item < items:
        seen[item] += 1
        done += 1
        item = claim(counters)
    finish(counters, done, items)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_item_is_computed_once(threads):
    items = 10_000
    first, counters, seen = empty_counters(1), empty_counters(1), np.zeros(items, np.int64)
    count_up(first.data_ptr(), 0, seen)  # compiles
    started = [
        threading.Thread(target=count_up, args=(counters.data_ptr(), items, seen), daemon=True)
        for _ in range(threads)
    ]
    for each in started:
        each.start()
    for each in started:
        each.join(60)
        assert not each.is_alive()
    assert (seen == 1).all()


@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (96, 1), (640, 2), (201_088, 16)])
def test_items_have_at_least_eight_rows(rows, threads):
    count = count_rows(rows, threads)
    assert count >= 8
    assert -(-rows // count) <= 16 * threads
