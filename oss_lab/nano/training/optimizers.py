"""The optimizers: Muon trains the matrices inside the layers, AdamW everything else."""

import functools
from collections.abc import Sequence

import torch
from torch import nn

from oss_lab.model import Transformer
from oss_lab.nano.training.recipe import Recipe, learning_rate_scale


def make_optimizers(model: Transformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices inside the layers, one optimizer per layer. AdamW for
    embedding, unembedding, routers, and the vectors, which have no weight decay."""
    matrices: dict[str, list[nn.Parameter]] = {}
    tables, vectors = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or name.endswith("_bias"):
            vectors.append(parameter)
        elif "embedding" in name or ".gate." in name:
            tables.append(parameter)
        else:
            layer = name.split(".")[1]
            matrices.setdefault(layer, []).append(parameter)
    groups = [
        {"params": tables, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    muon = functools.partial(
        torch.optim.Muon,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(groups, lr=recipe.adam_rate, betas=(0.9, 0.98), fused=True)
    return [*map(muon, matrices.values()), adamw]


def set_rates(optimizers: Sequence[torch.optim.Optimizer], recipe: Recipe, step: int) -> None:
    """Set the learning rates of this step, by `learning_rate_scale`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * learning_rate_scale(recipe, step)
