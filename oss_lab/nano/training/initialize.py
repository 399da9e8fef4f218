"""The initial weights: random, except for heads that attend a few tokens back.

A look-up needs two layers. The first copies into each token which tokens precede it; a later one
attends to the position with the same preceding tokens (an induction head, arXiv 2209.11895). From
random weights, nano needs a third of its training to learn the first part. So some heads start with
it, as q and k biases, which RoPE turns into a function of distance alone. Training may change them.
"""

import math
from typing import cast

import torch
from torch import nn

from oss_lab.config import ModelConfig
from oss_lab.model import Transformer
from oss_lab.model.rope import inverse_frequencies
from oss_lab.model.transformer import Block

SIZE = 3.5  # of a bias, in the two fastest rotated pairs; smaller values attend to more tokens


def initialize(model: Transformer, seed: int, look_back: int = 0) -> None:
    """Set all weights: matrices are normal with standard deviation 1/sqrt(inputs), divided by
    sqrt(2 layers) if they write to the residual stream; norm scales stay 1; sinks and biases are 0,
    except the q and k biases of heads in the first layer that look back.

    Args:
        look_back: the largest distance in tokens that one of these heads attends to. Limited to the
            number of query heads per key-value head.
    """
    generator = torch.Generator().manual_seed(seed)
    depth = math.sqrt(2 * model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.scale"):
            continue
        if parameter.dim() < 2 or name.endswith("_bias"):
            nn.init.zeros_(parameter)
            continue
        std = 0.5 if name == "embedding.weight" else parameter.shape[-1] ** -0.5
        if "attn.out" in name or "mlp2_weight" in name:
            std /= depth
        with torch.no_grad():
            parameter.normal_(0, std, generator=generator)
    with torch.no_grad():
        if look_back:
            first = cast(Block, model.block[0])
            set_look_back(first.attn.qkv.bias, model.config, look_back)


def set_look_back(bias: torch.Tensor, config: ModelConfig, farthest: int) -> None:
    """Set q and k in `bias` [q k v] to make the first heads of each group attend 1, 2, ... back.

    In a pair that rotates by w radians per token, a query rotated by -d w lines up with the key d
    tokens back.
    """
    half = config.head_dim // 2
    heads = bias.view(-1, 2, half)
    group = config.num_attention_heads // config.num_key_value_heads
    frequency = inverse_frequencies(config)[:2]
    for kv_head in range(config.num_key_value_heads):
        heads[config.num_attention_heads + kv_head, 0, :2] = SIZE
        for back in range(1, min(farthest, group) + 1):
            query = heads[kv_head * group + back - 1]
            query[0, :2] = SIZE * (back * frequency).cos()
            query[1, :2] = -SIZE * (back * frequency).sin()
