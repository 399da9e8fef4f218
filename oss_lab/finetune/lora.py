"""LoRA (arXiv 2106.09685): the low-rank parts that are trained while all weights stay frozen.

A matrix W [rows columns] gets two small ones and computes W x + alpha / rank * up (down x). `down`
starts random and `up` zero, so an untrained part changes nothing. The experts of a layer have one
pair each, stacked. Names, first values and arithmetic are PEFT's, so its files can be read and
written (`files.py`). The parts are always float32. Left out: dropout.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.finetune.recipe import Recipe
from oss_lab.finetune.targets import TARGETS, matrix_size


class LowRank(nn.Module):
    """The low-rank part of one matrix: scale * up @ down."""

    def __init__(
        self, up: Float[Tensor, "rows rank"], down: Float[Tensor, "rank columns"], scale: float
    ) -> None:
        super().__init__()
        self.up, self.down, self.scale = nn.Parameter(up), nn.Parameter(down), scale

    def forward(self, x: Float[Tensor, "*axes columns"]) -> Float[Tensor, "*axes rows"]:
        """What is added to the frozen matrix's product with x, in float32."""
        return F.linear(F.linear(x.to(self.down.dtype), self.down), self.up) * self.scale


class LowRankStack(nn.Module):
    """The low-rank parts of the experts of a layer."""

    def __init__(
        self,
        up: Float[Tensor, "expert rows rank"],
        down: Float[Tensor, "expert rank columns"],
        scale: float,
    ) -> None:
        super().__init__()
        self.up, self.down, self.scale = nn.Parameter(up), nn.Parameter(down), scale

    def forward(
        self, experts: Sequence[int], inputs: Sequence[Float[Tensor, "token columns"]]
    ) -> list[Float[Tensor, "token rows"]]:
        """What is added to the product of each of these experts with its own inputs."""
        ups, downs = self.up.unbind(), self.down.unbind()
        return [
            F.linear(F.linear(x.to(self.down.dtype), downs[n]), ups[n]) * self.scale
            for n, x in zip(experts, inputs, strict=True)
        ]


Part = LowRank | LowRankStack


class Lora(nn.Module):
    """The low-rank parts of a model: for each layer, its targets by PEFT's names."""

    def __init__(self, layers: Sequence[Mapping[str, Part]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict(dict(layer)) for layer in layers)

    def parts(self) -> Iterator[dict[str, Part]]:
        """The parts of each layer, by PEFT's names of their targets."""
        for layer in self.layers:
            yield cast("dict[str, Part]", dict(cast(nn.ModuleDict, layer).items()))


def make_lora(config: ModelConfig, recipe: Recipe) -> Lora:
    """Untrained parts, which change nothing yet. The seed determines their values."""
    generator = torch.Generator().manual_seed(recipe.seed)
    scale = recipe.alpha / recipe.rank
    layers: list[dict[str, Part]] = []
    for _ in range(config.num_hidden_layers):
        layers.append({})
        for name in recipe.targets:
            rows, columns = matrix_size(config, name)
            is_stacked = TARGETS[name].is_stacked
            experts = (config.num_experts,) if is_stacked else ()
            down = torch.empty(*experts, recipe.rank, columns)
            down.uniform_(-1 / math.sqrt(columns), 1 / math.sqrt(columns), generator=generator)
            up = torch.zeros(*experts, rows, recipe.rank)
            layers[-1][name] = (LowRankStack if is_stacked else LowRank)(up, down, scale)
    return Lora(layers)


def count_trained(config: ModelConfig, recipe: Recipe) -> int:
    """How many numbers are trained."""
    sizes = (
        sum(matrix_size(config, name)) * (config.num_experts if TARGETS[name].is_stacked else 1)
        for name in recipe.targets
    )
    return recipe.rank * sum(sizes) * config.num_hidden_layers
