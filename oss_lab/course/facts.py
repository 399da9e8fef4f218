"""Facts that the lessons state without computing them: numbers of MXFP4 and of configurations.

A fact comes with a word, such as "window". A number in the prose is that fact only if its sentence
has the word: the 32 of "32 GB" is not nano's window.
"""

import math
from collections.abc import Iterator

from oss_lab.config import MODELS, ModelConfig
from oss_lab.model.rope import ramp_limits, yarn_concentration


def list_facts() -> Iterator[tuple[str, float]]:
    """A word, and a number that may be stated about it, for MXFP4 and for each of the models."""
    yield from (("radian", round(2 * math.pi, 2)), ("gib", 2**10))
    yield from (("bit", 16), ("bit", 32), ("bit", 8 * 17 / 32))
    yield from (("weights", 32), ("value", 2**4), ("byte", 17), ("byte", 16), ("byte", 32 * 2))
    for config in MODELS.values():
        for word, numbers in describe_config(config).items():
            yield from ((word, number) for number in numbers)


def describe_config(config: ModelConfig) -> dict[str, tuple[float, ...]]:
    """The numbers of a configuration, by a word for what they count or limit."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    layers, context = config.num_hidden_layers, config.initial_context_length
    return {
        "layer": (layers,),
        f"layer {layers - 1}": (layers - 1,),
        "expert": (config.num_experts, config.experts_per_token),
        "network": (config.num_experts,),
        "head": (heads, kv_heads, heads // kv_heads, config.head_dim),
        "dimension": (config.head_dim,),
        "number": (config.hidden_size,),
        "weights": (config.hidden_size,),
        "vocabulary": (config.vocab_size,),
        "window": (config.sliding_window,),
        "gate": (config.swiglu_limit,),
        "limit": (config.swiglu_limit,),
        "theta": (config.rope_theta,),
        "turn": (config.rope_ntk_beta,),
        "context": (context,),
        "yarn": (context,),
        "token": (context * config.rope_scaling_factor,),
        "concentration": (round(yarn_concentration(config.rope_scaling_factor), 2),),
        "pair": tuple(round(limit, 2) for limit in ramp_limits(config)),
    }
