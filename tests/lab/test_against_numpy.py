"""A second forward, in NumPy and float64, written from the paper's formulas and nothing else.

transformers and we could share a misreading. This twin is slow and plain: one sequence, one
token, head and expert at a time where that is clearer. Sources: arXiv 2508.10925 (architecture),
arXiv 2309.00071 (YaRN), OCP MX v1.0 (MXFP4).
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from oss_lab.model import Recorder

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def numpy_forward(config, weights: dict[str, np.ndarray], tokens) -> dict:
    """{(point, layer): value}, named as the taps are; weights by their original names."""
    seen = {}
    x = weights["embedding.weight"][tokens]
    for n in range(config.num_hidden_layers):
        own = {
            name.removeprefix(f"block.{n}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"block.{n}.")
        }
        seen["resid.pre", n] = x
        x = x + attention(config, own, x, config.layer_types[n], seen, n)
        seen["resid.mid", n] = x
        x = x + experts(config, own, x, seen, n)
        seen["resid.post", n] = x
    x = rms_norm(x, weights["norm.scale"], config)
    seen["out.logits", None] = x @ weights["unembedding.weight"].T
    return seen


def rms_norm(x, scale, config):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.rms_norm_eps) * scale


def attention(config, own, x, kind, seen, n):
    size, heads, kv_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    qkv = rms_norm(x, own["attn.norm.scale"], config) @ own["attn.qkv.weight"].T
    qkv = (qkv + own["attn.qkv.bias"]).reshape(len(x), heads + 2 * kv_heads, size)
    pattern = np.zeros((heads, len(x), len(x)))
    sink_mass = np.zeros((heads, len(x)))
    gathered = np.zeros((len(x), heads, size))
    for head in range(heads):
        kv_head = head // (heads // kv_heads)
        q = rope(config, qkv[:, head])
        k = rope(config, qkv[:, heads + kv_head])
        v = qkv[:, heads + kv_heads + kv_head]
        for i in range(len(x)):
            first = 0 if kind == "full_attention" else max(0, i - config.sliding_window + 1)
            mass = np.exp(k[first : i + 1] @ q[i] / math.sqrt(size))
            sink = np.exp(own["attn.sinks"][head])
            pattern[head, i, first : i + 1] = mass / (mass.sum() + sink)
            sink_mass[head, i] = sink / (mass.sum() + sink)
        gathered[:, head] = pattern[head] @ v
    seen["attn.pattern", n], seen["attn.sink_mass", n] = pattern, sink_mass
    return gathered.reshape(len(x), -1) @ own["attn.out.weight"].T + own["attn.out.bias"]


def rope(config, x):
    """Rotate x[p] by p times YaRN's frequencies; pair i is (x[i], x[i + size / 2])."""
    size, base, factor = config.head_dim, config.rope_theta, config.rope_scaling_factor
    stretch = 0.1 * math.log(factor) + 1
    turned = np.zeros_like(x)
    for i in range(size // 2):
        frequency = base ** (-2 * i / size)
        alpha, beta = (
            size / 2 * math.log(config.initial_context_length / (turns * 2 * math.pi), base)
            for turns in (config.rope_ntk_alpha, config.rope_ntk_beta)
        )
        interpolated = min(1.0, max(0.0, (i - beta) / (alpha - beta)))
        frequency = frequency * (1 - interpolated) + frequency / factor * interpolated
        j = i + size // 2
        for p in range(len(x)):
            cos, sin = stretch * math.cos(p * frequency), stretch * math.sin(p * frequency)
            turned[p, i] = cos * x[p, i] - sin * x[p, j]
            turned[p, j] = sin * x[p, i] + cos * x[p, j]
    return turned


def experts(config, own, x, seen, n):
    normed = rms_norm(x, own["mlp.norm.scale"], config)
    logits = normed @ own["mlp.gate.weight"].T + own["mlp.gate.bias"]
    ids = np.argsort(-logits, axis=-1)[:, : config.experts_per_token]
    chosen = np.exp(np.take_along_axis(logits, ids, axis=-1))
    weights = chosen / chosen.sum(-1, keepdims=True)
    seen["moe.expert_ids", n], seen["moe.expert_weights", n] = ids, weights
    out = np.zeros_like(x)
    for p, token in enumerate(normed):
        for expert, weight in zip(ids[p], weights[p], strict=True):
            gate_up = decode(own, "mlp.mlp1_weight", expert) @ token + own["mlp.mlp1_bias"][expert]
            gate = np.minimum(gate_up[0::2], config.swiglu_limit)
            up = np.clip(gate_up[1::2], -config.swiglu_limit, config.swiglu_limit)
            inner = gate / (1 + np.exp(-config.swiglu_alpha * gate)) * (up + 1)
            said = decode(own, "mlp.mlp2_weight", expert) @ inner + own["mlp.mlp2_bias"][expert]
            out[p] += weight * said
    return out


def decode(own, name, expert):
    blocks, scales = own[f"{name}.blocks"][expert], own[f"{name}.scales"][expert]
    elements = np.empty((*blocks.shape[:-1], 32))
    elements[..., 0::2], elements[..., 1::2] = E2M1[blocks & 15], E2M1[blocks >> 4]
    return (elements * 2.0 ** (scales[..., None].astype(int) - 127)).reshape(len(blocks), -1)


@pytest.mark.parametrize(
    "changes",
    [{}, {"swiglu_limit": 0.75, "layer_types": ("full_attention", "sliding_attention")}],
    ids=["published", "tight clamp, full layer first"],
)
def test_every_compared_point_agrees(
    tiny_config, changes, scaled_tensors, random_model, untied_tokens
):
    config = replace(tiny_config, **changes)
    model = random_model(config)
    tokens = untied_tokens(model, 1, 40)
    weights = {
        name: tensor.numpy() if tensor.dtype == torch.uint8 else tensor.double().numpy()
        for name, tensor in scaled_tensors(config).items()
    }
    expected = numpy_forward(config, weights, tokens[0].numpy())
    watch = Recorder({name for name, _ in expected})
    model(tokens, taps=watch)
    assert watch.seen.keys() == expected.keys()
    for (name, layer), value in expected.items():
        (ours,) = watch.seen[name, layer]
        np.testing.assert_allclose(
            ours[0].double().numpy(), value, atol=2e-5, err_msg=f"{name} of layer {layer}"
        )
