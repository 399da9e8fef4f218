"""What llama.cpp cannot run, and what it computes differently from the published model.

llama.cpp has gpt-oss's constants in its code: which layers slide, SwiGLU's slope and limit, YaRN's
turns. It also rounds the limits of YaRN's ramp, which gpt-oss does not (`truncate` is false): 9 of
20b's 32 RoPE frequencies differ, one by 76 %, and 2 of nano's 8, one by 51 %.

Measured with llama.cpp of llama-cpp-python 0.3.36 on nano (8 sequences of 64 to 1,000 random tokens
and 3 chats, seed 19), as the relative RMS of the difference of the logits to ours in float32:

- All tensors as F32, no flash attention, our frequencies rounded as above: at most 5e-6. Both
  compute the same. With llama.cpp's flash attention: up to 4e-2.
- This file, the same frequencies: 0.05 to 0.11 on random tokens, 0.006 to 0.09 on chats. llama.cpp
  rounds the inputs of a product to bf16, or to 8 bits where the weights are MXFP4. Our own model in
  bfloat16 differs from float32 by 0.12 to 0.19 and 0.008 to 0.09.
- The true frequencies: 0.16 to 0.29 and 0.02 to 0.09, mostly from the rounded limits alone, which
  change our own logits by 0.16 to 0.30 and 0.03 to 0.05.

What these limits cost nano, with our own forward pass: 100 of 100 products are right, as with the
true ones, but 41 of 100 sums of five terms, not 97 (the course's table of mistakes). After two
look-ups it answers where it should make a third: 0 of 100 sums of three words are right (95 %
interval 0 to 3.7 %; 94 with the true limits; seed 1, medium effort, greedy). llama.cpp: 0 of 20.
"""

import math

from jaxtyping import Float
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import CheckpointError
from oss_lab.model.rope import inverse_frequencies, ramp_limits, yarn_frequencies

BUILT_IN = ModelConfig()


def check_config(config: ModelConfig) -> None:
    """Raise CheckpointError for a model that llama.cpp would run with other numbers."""
    alternating = ModelConfig(num_hidden_layers=config.num_hidden_layers)
    for field, wanted in (
        ("layer_types", alternating.layer_types),
        ("swiglu_alpha", BUILT_IN.swiglu_alpha),
        ("swiglu_limit", BUILT_IN.swiglu_limit),
        ("rope_ntk_alpha", BUILT_IN.rope_ntk_alpha),
        ("rope_ntk_beta", BUILT_IN.rope_ntk_beta),
    ):
        if getattr(config, field) != wanted:
            what = "an alternation that starts with sliding" if field == "layer_types" else wanted
            raise CheckpointError(
                f"this model cannot become a GGUF file: llama.cpp runs gpt-oss only with"
                f" {field} {what}"
            )


def rounded_frequencies(config: ModelConfig) -> Float[Tensor, "half"]:
    """The RoPE frequencies of llama.cpp: the ramp's limits rounded down and up to whole pairs."""
    low, high = ramp_limits(config)
    low, high = max(0, math.floor(low)), min(config.head_dim - 1, math.ceil(high))
    return yarn_frequencies(
        config.head_dim, config.rope_theta, config.rope_scaling_factor, low, high
    )


def describe_frequencies(config: ModelConfig) -> str:
    """One sentence: how many of llama.cpp's RoPE frequencies differ, and by how much at most."""
    ours, theirs = inverse_frequencies(config), rounded_frequencies(config)
    change = (theirs / ours - 1).abs()
    count = int((change > 1e-6).sum())
    return (
        f"llama.cpp rounds the limits of YaRN's ramp: {count} of {len(ours)} RoPE frequencies"
        f" differ from this model's, one by {change.max():.0%}, so its logits differ too"
    )
