"""An independent forward pass in NumPy and float64, written only from the papers' formulas.

transformers and our model could misread a formula in the same way, so this code shares nothing with
the model. It computes one sequence, one head and one expert at a time, and returns every point in
the shape that a trace stores. Sources: arXiv 2508.10925 (architecture), arXiv 2309.00071 (YaRN),
OCP MX v1.0 (MXFP4).
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from oss_lab.config import ModelConfig

Array = NDArray[np.float64]
Seen = dict[tuple[str, int | None], NDArray]
Weights = Mapping[str, NDArray]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
RANKS = 20


def numpy_forward(
    config: ModelConfig,
    weights: Weights,
    tokens: NDArray[np.int64],
    choice: Mapping[int, NDArray[np.int64]] | None = None,
    without: Collection[str] = (),
) -> Seen:
    """{(point, layer): value [seq, ...]}. Weights have the names of the original checkpoint.

    Args:
        choice: the experts [seq slot] that each layer uses. None uses the experts chosen here. With
            the choices of another forward pass, values stay comparable even if two experts nearly
            tie and the two passes would choose differently.
        without: attn.scores, attn.pattern or both. They have a number for each pair of tokens, and
            those named here are not stored.
    """
    seen: Seen = {}
    x = weights["embedding.weight"][tokens].astype(np.float64)
    seen["embed", None] = x
    for n in range(config.num_hidden_layers):
        prefix = f"block.{n}."
        own = {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}
        seen["resid.pre", n] = x
        x = x + attention(config, own, x, config.layer_types[n], seen, n, without)
        seen["resid.mid", n] = x
        x = x + experts(config, own, x, seen, n, None if choice is None else choice[n])
        seen["resid.post", n] = x
        seen["out.layer_logits", n] = unembed(config, weights, x)
    seen["out.norm", None] = rms_norm(x, weights["norm.scale"], config)
    seen["out.logits", None] = logits = unembed(config, weights, x)
    shifted = logits - logits.max(-1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :RANKS]
    seen["out.top_ids", None] = best
    seen["out.top_logprobs", None] = np.take_along_axis(logprobs, best, axis=-1)
    return seen


def unembed(config: ModelConfig, weights: Weights, x: Array) -> Array:
    normed = rms_norm(x, weights["norm.scale"], config)
    return normed @ weights["unembedding.weight"].astype(np.float64).T


def rms_norm(x: Array, scale: NDArray, config: ModelConfig) -> Array:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.rms_norm_eps) * scale


def attention(
    config: ModelConfig,
    own: Weights,
    x: Array,
    kind: str,
    seen: Seen,
    n: int,
    without: Collection[str],
) -> Array:
    size, heads, kv_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    normed = rms_norm(x, own["attn.norm.scale"], config)
    qkv = normed @ own["attn.qkv.weight"].astype(np.float64).T + own["attn.qkv.bias"]
    qkv = qkv.reshape(len(x), heads + 2 * kv_heads, size)
    q, k, v = np.split(qkv, [heads, heads + kv_heads], axis=1)
    q_rot, k_rot = rope(config, q), rope(config, k)
    distance = np.arange(len(x))[:, None] - np.arange(len(x))
    visible = distance >= 0
    if kind == "sliding_attention":
        visible &= distance < config.sliding_window
    for name in {"attn.scores", "attn.pattern"}.difference(without):
        seen[name, n] = np.empty((len(x), heads, len(x)))
    z, lse = np.zeros((len(x), heads, size)), np.zeros((len(x), heads))
    sink = own["attn.sinks"].astype(np.float64)
    for head in range(heads):
        kv_head = head // (heads // kv_heads)
        products = q_rot[:, head] @ k_rot[:, kv_head].T / math.sqrt(size)
        scores = np.where(visible, products, -np.inf)
        mass = np.exp(scores)
        total = mass.sum(-1) + np.exp(sink[head])
        pattern, lse[:, head] = mass / total[:, None], np.log(total)
        z[:, head] = pattern @ v[:, kv_head]
        for name, value in (("attn.scores", scores), ("attn.pattern", pattern)):
            if name not in without:
                seen[name, n][:, head] = value
    by_head = own["attn.out.weight"].astype(np.float64).reshape(-1, heads, size)
    head_out = np.einsum("shd,nhd->shn", z, by_head)
    out = head_out.sum(1) + own["attn.out.bias"]
    for name, value in (
        ("norm", normed), ("q", q), ("k", k), ("v", v), ("q_rot", q_rot), ("k_rot", k_rot),
        ("sink", sink), ("sink_mass", np.exp(sink - lse)), ("lse", lse), ("z", z),
        ("head_out", head_out), ("out", out),
    ):  # fmt: skip
        seen[f"attn.{name}", n] = value
    return out


def rope(config: ModelConfig, x: Array) -> Array:
    """Rotate x at position p by p times YaRN's frequencies. Pair i is (x[i], x[i + size / 2])."""
    size, base, factor = config.head_dim, config.rope_theta, config.rope_scaling_factor
    stretch = 0.1 * math.log(factor) + 1
    positions, rotated = np.arange(len(x))[:, None], np.zeros_like(x)
    for i in range(size // 2):
        frequency = base ** (-2 * i / size)
        alpha, beta = (
            size / 2 * math.log(config.initial_context_length / (turns * 2 * math.pi), base)
            for turns in (config.rope_ntk_alpha, config.rope_ntk_beta)
        )
        interpolated = min(1.0, max(0.0, (i - beta) / (alpha - beta)))
        frequency = frequency * (1 - interpolated) + frequency / factor * interpolated
        j = i + size // 2
        cos, sin = stretch * np.cos(positions * frequency), stretch * np.sin(positions * frequency)
        rotated[..., i] = cos * x[..., i] - sin * x[..., j]
        rotated[..., j] = sin * x[..., i] + cos * x[..., j]
    return rotated


def experts(
    config: ModelConfig,
    own: Weights,
    x: Array,
    seen: Seen,
    n: int,
    choice: NDArray[np.int64] | None,
) -> Array:
    normed = rms_norm(x, own["mlp.norm.scale"], config)
    logits = normed @ own["mlp.gate.weight"].astype(np.float64).T + own["mlp.gate.bias"]
    slots = config.experts_per_token
    descending = np.sort(logits, axis=-1)[:, ::-1]
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, :slots] if choice is None else choice
    chosen = np.exp(np.take_along_axis(logits, ids, axis=-1))
    weights = chosen / chosen.sum(-1, keepdims=True)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    gate, up, act = np.zeros((3, *ids.shape, config.intermediate_size))
    expert_out = np.zeros((*ids.shape, config.hidden_size))
    for expert in np.unique(ids):
        token, slot = np.nonzero(ids == expert)
        gate_up = normed[token] @ dequantize(own, "mlp.mlp1_weight", expert).T
        gate_up += own["mlp.mlp1_bias"][expert]
        gate[token, slot], up[token, slot] = gate_up[:, 0::2], gate_up[:, 1::2]
        clamped = np.minimum(gate_up[:, 0::2], config.swiglu_limit)
        shifted = np.clip(gate_up[:, 1::2], -config.swiglu_limit, config.swiglu_limit) + 1
        inner = clamped / (1 + np.exp(-config.swiglu_alpha * clamped)) * shifted
        act[token, slot] = inner
        expert_out[token, slot] = inner @ dequantize(own, "mlp.mlp2_weight", expert).T
        expert_out[token, slot] += own["mlp.mlp2_bias"][expert]
    out = (expert_out * weights[..., None]).sum(1)
    for name, value in (
        ("norm", normed), ("router_logits", logits), ("expert_ids", ids),
        ("expert_weights", weights), ("margin", descending[:, slots - 1] - descending[:, slots]),
        ("entropy", -(shares * np.log(shares)).sum(-1)), ("gate", gate), ("up", up), ("act", act),
        ("expert_out", expert_out), ("out", out),
    ):  # fmt: skip
        seen[f"moe.{name}", n] = value
    return out


def dequantize(own: Weights, name: str, expert: int) -> Array:
    """One expert's matrix [rows columns]. In MXFP4, 32 four-bit codes share a power of two."""
    if name in own:
        return own[name][expert]  # stored as numbers
    blocks, scales = own[f"{name}.blocks"][expert], own[f"{name}.scales"][expert]
    elements = np.empty((*blocks.shape[:-1], 32))
    elements[..., 0::2], elements[..., 1::2] = E2M1[blocks & 15], E2M1[blocks >> 4]
    return (elements * 2.0 ** (scales[..., None].astype(int) - 127)).reshape(len(blocks), -1)
