"""The configuration of a gpt-oss model in nineteen values: 20b, 120b and nano.

`ModelConfig` has the sixteen fields of the original `config.json`, with the same names. Three more
are constants there: norm epsilon, sigmoid slope and layer types. The defaults are those of the
120b, as in OpenAI's implementation. Parameter counts, tensor shapes and memory are derived from
these values. `oss_lab.checkpoint.dialects` reads the two dialects of `config.json`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

LayerType = Literal["sliding_attention", "full_attention"]
History = Literal["full", "window"]
"""Which keys and values to keep: all, or in sliding layers only those that new tokens see."""
MXFP4_BLOCK = 32  # consecutive values along a weight's last axis that share one scale byte
LARGEST_CONTEXT = 2**31 - 1
LAYER_TYPES: tuple[LayerType, ...] = ("sliding_attention", "full_attention")


@dataclass(frozen=True)
class ModelConfig:
    """The shape and constants of one gpt-oss model (architecture: arXiv 2508.10925, section 2).

    Attributes:
        head_dim: size of one attention head; not hidden_size / num_attention_heads.
        sliding_window: number of keys that a sliding layer sees, including the query's own.
        initial_context_length: context length before YaRN extends it by rope_scaling_factor.
        rope_ntk_alpha, rope_ntk_beta: a RoPE frequency with fewer than alpha rotations over the
            initial context is interpolated, one with more than beta rotations is kept (Hugging
            Face: beta_slow, beta_fast).
        layer_types: one of LAYER_TYPES per layer; if empty, alternating, starting with sliding.
    """

    num_hidden_layers: int = 36
    num_experts: int = 128
    experts_per_token: int = 4
    vocab_size: int = 201088
    hidden_size: int = 2880
    intermediate_size: int = 2880
    swiglu_limit: float = 7.0
    head_dim: int = 64
    num_attention_heads: int = 64
    num_key_value_heads: int = 8
    sliding_window: int = 128
    initial_context_length: int = 4096
    rope_theta: float = 150000.0
    rope_scaling_factor: float = 32.0
    rope_ntk_alpha: float = 1.0
    rope_ntk_beta: float = 32.0
    rms_norm_eps: float = 1e-5
    swiglu_alpha: float = 1.702
    layer_types: tuple[LayerType, ...] = ()

    def __post_init__(self) -> None:
        if not self.layer_types:
            alternating = tuple(LAYER_TYPES[n % 2] for n in range(self.num_hidden_layers))
            object.__setattr__(self, "layer_types", alternating)

    @property
    def max_context_length(self) -> int:
        """Context length with YaRN: 131,072 for the published models."""
        return round(self.initial_context_length * self.rope_scaling_factor)

    def window(self, layer: int) -> int | None:
        """Number of keys that `layer` sees, or None if it sees all earlier ones."""
        return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None


def find_contradictions(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield (field, problem) for each value that contradicts another or the architecture."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if len(config.layer_types) != layers:
        yield "layer_types", f"has {len(config.layer_types)} entries; num_hidden_layers is {layers}"
    if config.experts_per_token > config.num_experts:
        active, experts = config.experts_per_token, config.num_experts
        yield "experts_per_token", f"is {active}, more than num_experts, {experts}"
    if heads % config.num_key_value_heads:
        kv_heads = config.num_key_value_heads
        yield (
            "num_attention_heads",
            f"is {heads}, not a multiple of num_key_value_heads, {kv_heads}",
        )
    if config.head_dim % 2:
        yield "head_dim", f"is {config.head_dim}; RoPE needs an even number"
    for field in ("hidden_size", "intermediate_size"):
        size = getattr(config, field)
        if size % MXFP4_BLOCK:
            yield field, f"is {size}, not a multiple of MXFP4's block of {MXFP4_BLOCK}"

    alpha, beta = config.rope_ntk_alpha, config.rope_ntk_beta
    if config.rope_theta <= 1:
        yield "rope_theta", f"is {config.rope_theta:g}; it must be above 1"
    if beta <= alpha:
        yield "rope_ntk_beta", f"is {beta:g}, not above rope_ntk_alpha, {alpha:g}"
    context = config.initial_context_length
    if context <= 2 * math.pi * alpha:
        yield "initial_context_length", f"is {context}, too short for rope_ntk_alpha, {alpha:g}"
    if context * config.rope_scaling_factor > LARGEST_CONTEXT:
        factor = config.rope_scaling_factor
        yield (
            "rope_scaling_factor",
            f"is {factor:g}, too much for initial_context_length, {context}",
        )


GPT_OSS_120B = ModelConfig()
GPT_OSS_20B = replace(GPT_OSS_120B, num_hidden_layers=24, num_experts=32, layer_types=())
GPT_OSS_NANO = ModelConfig(
    num_hidden_layers=4,
    num_experts=32,
    experts_per_token=4,
    vocab_size=640,
    hidden_size=96,
    intermediate_size=96,
    head_dim=16,
    num_attention_heads=8,
    num_key_value_heads=2,
    sliding_window=32,
    initial_context_length=256,
)

MODELS = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B, "nano": GPT_OSS_NANO}
