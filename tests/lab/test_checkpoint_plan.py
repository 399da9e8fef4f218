"""Exact parameter tables, checkpoint sizes and memory plans of the published models."""

import pytest

from oss_lab.checkpoint.layouts import stored_table, tensor_table
from oss_lab.checkpoint.plan import (
    bytes_per_layer,
    bytes_per_token,
    checkpoint_bytes,
    count_parameters,
    kv_cache_bytes,
    plan_memory,
    prefill_bytes,
)
from oss_lab.config import GPT_OSS_20B, GPT_OSS_120B, GPT_OSS_NANO, MODELS

# Model card (arXiv 2508.10925), Table 1, and the published index's total_size for 20b.
PUBLISHED = {
    "120b": {
        "mlp": 114_714_874_368,
        "attention": 955_805_184,
        "norm": 210_240,
        "embedding": 1_158_266_880,
        "active": 5_132_849_472,
        "total": 116_829_156_672,
    },
    "20b": {
        "mlp": 19_119_145_728,
        "attention": 637_203_456,
        "norm": 141_120,
        "embedding": 1_158_266_880,
        "active": 3_608_307_264,
        "total": 20_914_757_184,
    },
}
BYTES = {"120b": (65_248_815_744, 1_748_118_784), "20b": (13_761_264_768, 476_863_552)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_table(name):
    counted = count_parameters(MODELS[name])
    assert {part: getattr(counted, part) for part in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", MODELS)
def test_parts_add_up(name):
    counted = count_parameters(MODELS[name])
    parts = counted.mlp + counted.attention + counted.norm + counted.embedding
    assert parts == counted.total
    assert counted.active < counted.total


@pytest.mark.parametrize("name", BYTES)
def test_published_bytes(name):
    assert (checkpoint_bytes(MODELS[name]), bytes_per_layer(MODELS[name])) == BYTES[name]


@pytest.mark.parametrize("layout", ["original", "huggingface"])
@pytest.mark.parametrize("name", MODELS)
def test_layouts_hold_the_same_bytes(name, layout):
    stored = list(stored_table(MODELS[name], layout))
    assert sum(tensor.nbytes for tensor in stored) == checkpoint_bytes(MODELS[name])
    assert len({tensor.name for tensor in stored}) == len(stored)


def test_tensor_counts():
    for config, original, huggingface in ((GPT_OSS_20B, 363, 459), (GPT_OSS_120B, 543, 687)):
        assert len(list(stored_table(config, "original"))) == original
        assert len(list(stored_table(config, "huggingface"))) == huggingface


def test_published_shapes():
    shapes = {spec.name: spec.shape for spec in tensor_table(GPT_OSS_20B)}
    assert shapes["block.23.attn.qkv.weight"] == (5120, 2880)
    assert shapes["block.0.attn.out.weight"] == (2880, 4096)
    assert shapes["block.0.mlp.mlp1_weight.blocks"] == (32, 5760, 90, 16)
    assert shapes["block.0.mlp.mlp2_weight.scales"] == (32, 2880, 90)


def test_kv_cache():
    assert kv_cache_bytes(GPT_OSS_120B, 1) == 72 * 2**10
    assert kv_cache_bytes(GPT_OSS_20B, 1) == 48 * 2**10
    assert kv_cache_bytes(GPT_OSS_120B, 131072) == 9 * 2**30
    assert kv_cache_bytes(GPT_OSS_20B, 131072) == 6 * 2**30
    window = kv_cache_bytes(GPT_OSS_20B, 131072, history="window")
    assert window == 2048 * 12 * (131072 + 128)
    assert kv_cache_bytes(GPT_OSS_20B, 100, history="window") == 100 * 48 * 2**10
    assert kv_cache_bytes(GPT_OSS_20B, 100, dtype="float32") == 200 * 48 * 2**10


def test_bytes_read_per_token():
    assert round(bytes_per_token(GPT_OSS_120B) / 1e9, 2) == 5.00
    assert round(bytes_per_token(GPT_OSS_20B) / 1e9, 2) == 3.71


def test_memory_plan():
    plan = plan_memory(GPT_OSS_20B, expert_cache_bytes=10**9)
    assert plan.expert_cache == 10**9
    assert plan.weights + plan.packed_experts == checkpoint_bytes(GPT_OSS_20B)
    assert plan.kv_cache == kv_cache_bytes(GPT_OSS_20B, 4096)
    parts = plan.weights + plan.packed_experts + plan.expert_cache + plan.kv_cache
    assert plan.total == parts
    single = plan_memory(GPT_OSS_20B, dtype="float32", context=1)
    assert (single.weights, single.kv_cache) == (2 * plan.weights, 2 * 48 * 2**10)


def test_the_plan_of_a_run_counts_windows_and_the_prefill():
    scratch = prefill_bytes(GPT_OSS_20B, 512, 131_072, is_reference=False)
    plan = plan_memory(
        GPT_OSS_20B, context=131_072, expert_cache_bytes=0, history="window", scratch=scratch
    )
    assert plan.kv_cache == kv_cache_bytes(GPT_OSS_20B, 131_072, history="window")
    assert plan.total == checkpoint_bytes(GPT_OSS_20B) + plan.kv_cache + scratch
    assert f"prefill at most {scratch / 2**20:,.1f} MiB" in plan.sentence
    short = prefill_bytes(GPT_OSS_20B, 512, 4096, is_reference=False)
    plan = plan_memory(GPT_OSS_20B, expert_cache_bytes=0, history="window", scratch=short)
    assert plan.total < 15 * 10**9  # within 16 GB with the CPU kernels
    scores = 3 * 64 * 512 * 4096 * 4
    assert prefill_bytes(GPT_OSS_20B, 512, 4096, is_reference=True) == short + scores


def test_all_of_nano_fits_into_the_expert_cache():
    plan = plan_memory(GPT_OSS_NANO)
    nano = GPT_OSS_NANO
    weights = 3 * nano.intermediate_size * nano.hidden_size
    assert plan.expert_cache == 2 * nano.num_hidden_layers * nano.num_experts * weights
