"""The random weights that training starts from."""

import math

import torch
from torch import nn

from oss_lab.model import Transformer


def initialise(model: Transformer, seed: int) -> None:
    """Normal matrices of 1/sqrt(inputs), smaller with depth where they write to the residual;
    norm scales one, biases and sinks zero."""
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
