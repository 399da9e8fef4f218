"""The weights that training starts from: random, but for heads that may look a few tokens back.

A look-up needs two layers: one tells a token which tokens stand before it, a later one finds the
place whose predecessors are the same (an induction head, arXiv 2209.11895). Found from nothing, the
first takes a third of nano's training; so it begins with heads that do it. They are q and k biases,
which rotary embedding turns into a function of distance alone, and training may change them.
"""

import math
from typing import cast

import torch
from torch import nn

from oss_lab.config import ModelConfig
from oss_lab.model import Transformer
from oss_lab.model.rope import inverse_frequencies
from oss_lab.model.transformer import Block

SIZE = 3.5  # of a bias, in each of the two fastest rotated pairs; at less the heads look at more


def initialize(model: Transformer, seed: int, look_back: int = 0) -> None:
    """Normal matrices of 1/sqrt(inputs), smaller with depth where they write to the residual;
    norm scales one; sinks and biases zero, but for the first layer's that look back.

    Args:
        look_back: how many tokens back the farthest of these heads looks; no more of them than
            share a key-value head.
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
            set_back(first.attn.qkv.bias, model.config, look_back)


def set_back(bias: torch.Tensor, config: ModelConfig, farthest: int) -> None:
    """Set q and k in `bias`, [q k v], so that the first heads of each group look 1, 2, ... back.

    A query turned by -d w for a pair of w radians a token is turned like the key d tokens back.
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
