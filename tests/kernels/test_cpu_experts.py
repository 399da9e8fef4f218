"""The CPU's experts against float64.

numba compiles a kernel for each path and each dtype of activations, which takes many seconds. So
each path is tested here with one dtype, the one that other tests use with it, and with the other
dtype in the slow tests.
"""

from collections.abc import Callable

import pytest
import torch
from oss_kernels.experts import reference
from oss_kernels.experts.weights import ExpertWeights

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.cpu import machine
from oss_kernels.experts import cpu

CONSTANTS = {"alpha": 1.702, "limit": 7.0}
EXPERTS, HIDDEN, WIDTH, SLOTS = 8, 160, 192, 3


@pytest.fixture
def layer(rng, random_mxfp4: Callable[..., tuple[torch.Tensor, torch.Tensor]]):
    """`layer(dtype)`: the weights of one layer."""

    def make(dtype, hidden=HIDDEN, width=WIDTH):
        return ExpertWeights(
            *random_mxfp4(EXPERTS, 2 * width, groups=hidden // 32, low=120, high=126),
            torch.randn(EXPERTS, 2 * width, generator=rng).to(dtype),
            *random_mxfp4(EXPERTS, hidden, groups=width // 32, low=120, high=126),
            torch.randn(EXPERTS, hidden, generator=rng).to(dtype),
        )

    return make


def make_inputs(rng, tokens, dtype, hidden=HIDDEN):
    ids = [torch.randperm(EXPERTS, generator=rng)[:SLOTS] for _ in range(tokens)]
    weights = torch.randn(tokens, SLOTS, generator=rng).softmax(-1)
    x = torch.randn(tokens, hidden, generator=rng).to(dtype)
    return x, torch.stack(ids).int(), weights


def compute_in_float64(x, ids, weights, experts):
    return reference.expert_mlp(x.double(), ids, weights.double(), experts, **CONSTANTS)


# Values between the two products are bfloat16 if x is.
CHAIN = {torch.float32: 2e-6, torch.bfloat16: 2**-9}


def check(got, want, dtype, chain):
    """Within one store's rounding plus `chain` of the largest number, for the two products before
    it."""
    store = 2**-8 if dtype == torch.bfloat16 else 2**-24
    assert got.dtype == dtype
    assert ((got.double() - want).abs() <= store * want.abs() + chain * want.abs().max()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 50])
def test_a_few_tokens(rng, layer, dtype, tokens):
    experts = layer(dtype)
    given = make_inputs(rng, tokens, dtype)
    check(
        cpu.expert_mlp(*given, experts, **CONSTANTS),
        compute_in_float64(*given, experts),
        dtype,
        CHAIN[dtype],
    )


QUICK = {
    "avx512_bf16": torch.bfloat16,
    "avx512": torch.float32,
    "avx2": torch.float32,
    "plain": torch.bfloat16,
}


@pytest.mark.parametrize(
    ("path", "dtype"),
    [
        pytest.param(path, dtype, marks=[pytest.mark.slow] * (dtype != QUICK[path]))
        for path in machine.list_paths()
        for dtype in CHAIN
        if machine.accepts(path, dtype)
    ],
)
def test_every_path(rng, layer, path, dtype):
    experts = layer(dtype)
    given = make_inputs(rng, 6, dtype)
    got = cpu.compute_in_one_call(*given, experts, **CONSTANTS, path=path)
    check(got, compute_in_float64(*given, experts), dtype, CHAIN[dtype])


def test_a_kernel_never_reads_freed_memory(rng, layer):
    """numba frees an array after the last use of its name, and an address does not count as a use.
    Makes many calls, because freed memory often keeps its contents for a while."""
    experts = layer(torch.float32)
    for call in range(100):
        given = make_inputs(rng, call % 8 + 1, torch.float32)
        got = cpu.expert_mlp(*given, experts, **CONSTANTS)
        check(got, compute_in_float64(*given, experts), torch.float32, 2e-6)


needs_amx = pytest.mark.skipif(not machine.has_amx(), reason="this CPU has no AMX")


def check_tiles(x, ids, weights, experts):
    got = cpu.compute_in_tiles(x, ids, weights, experts, **CONSTANTS)
    check(got, compute_in_float64(x, ids, weights, experts), torch.bfloat16, 2**-8)


@needs_amx
@pytest.mark.parametrize("hidden", [32, HIDDEN, 352])  # less, as much and more than is decoded once
@pytest.mark.parametrize("tokens", [1, 31, 33, 127, 128, 129])
def test_tiles(rng, layer, tokens, hidden):
    x, ids, weights = make_inputs(rng, tokens, torch.bfloat16, hidden)
    check_tiles(x, ids, weights, layer(torch.bfloat16, hidden))


@needs_amx
@pytest.mark.parametrize("tokens", [16, 17, 513])
def test_tiles_with_all_tokens_at_the_same_experts(rng, layer, tokens):
    x, ids, weights = make_inputs(rng, tokens, torch.bfloat16)
    ids[:] = torch.tensor([6, 0, 3])
    check_tiles(x, ids, weights, layer(torch.bfloat16))


@needs_amx
def test_tiles_of_views(rng, layer):
    x, ids, weights = make_inputs(rng, 40, torch.bfloat16)
    wide = torch.zeros(40, HIDDEN + 3).bfloat16()
    wide[:, 3:] = x
    check_tiles(wide[:, 3:], ids.long(), weights, layer(torch.bfloat16))


@needs_amx
def test_tiles_with_any_scale(rng, layer):
    """Scales below 3 and above 252 are decoded in another way, and 255 is NaN."""
    experts = layer(torch.bfloat16)
    x, ids, weights = make_inputs(rng, 40, torch.bfloat16)
    experts.gate_up_scales[1, 5, 2] = 2
    experts.down_scales[2, 0, 0] = 0
    check_tiles(x, ids, weights, experts)
    experts.down_scales[3, 150, 1] = 255
    got = cpu.compute_in_tiles(x, ids, weights, experts, **CONSTANTS)
    assert torch.equal(got[:, 150].isnan(), (ids == 3).any(dim=1))
    assert got[:, :150].isfinite().all()


@needs_amx
def test_bits_of_tiles_depend_on_neither_threads_nor_other_tokens(rng, layer, set_threads):
    experts = layer(torch.bfloat16)
    x, ids, weights = make_inputs(rng, 70, torch.bfloat16)
    got = []
    for threads in (1, 2):
        set_threads(threads)
        got.append(cpu.compute_in_tiles(x, ids, weights, experts, **CONSTANTS))
    assert torch.equal(got[0], got[1])
    x[5] = float("nan")
    with_nan = cpu.compute_in_tiles(x, ids, weights, experts, **CONSTANTS)
    assert with_nan[5].isnan().all()
    assert torch.equal(with_nan[6:], got[0][6:])
    some = slice(20, 41)
    alone = cpu.compute_in_tiles(x[some], ids[some], weights[some], experts, **CONSTANTS)
    assert torch.equal(alone, got[0][some])


@pytest.mark.parametrize(("dtype", "chain"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-7)])
def test_many_tokens(rng, layer, dtype, chain):
    experts = layer(dtype)
    x, ids, weights = make_inputs(rng, 100, dtype)
    want = compute_in_float64(x, ids, weights, experts)
    for compute in (cpu.expert_mlp, cpu.compute_one_by_one):  # with AMX these may differ
        check(compute(x, ids, weights, experts, **CONSTANTS), want, dtype, chain)


def test_the_sizes_of_nano(rng, layer):
    experts = layer(torch.float32, 96, 96)
    given = make_inputs(rng, 1, torch.float32, 96)
    check(
        cpu.expert_mlp(*given, experts, **CONSTANTS),
        compute_in_float64(*given, experts),
        torch.float32,
        2e-6,
    )


def test_no_token(rng, layer):
    experts = layer(torch.float32)
    x, ids, weights = make_inputs(rng, 1, torch.float32)
    assert cpu.expert_mlp(x[:0], ids[:0], weights[:0], experts, **CONSTANTS).shape == (0, HIDDEN)


def test_bits_depend_on_neither_threads_nor_other_tokens(rng, layer, set_threads):
    experts = layer(torch.bfloat16)
    given = x, ids, weights = make_inputs(rng, 3, torch.bfloat16)
    got = []
    for threads in (1, 2):
        set_threads(threads)
        got.append(cpu.expert_mlp(*given, experts, **CONSTANTS))
    assert torch.equal(got[0], got[1])
    alone = [
        cpu.expert_mlp(x[i : i + 1], ids[i : i + 1], weights[i : i + 1], experts, **CONSTANTS)
        for i in range(3)
    ]
    assert torch.equal(got[0], torch.cat(alone))


def test_a_nan_in_a_token_stays_in_it(rng, layer):
    experts = layer(torch.float32)
    x, ids, weights = make_inputs(rng, 2, torch.float32)
    x[0, 5] = float("nan")
    got = cpu.expert_mlp(x, ids, weights, experts, **CONSTANTS)
    assert got[0].isnan().all()
    assert got[1].isfinite().all()
