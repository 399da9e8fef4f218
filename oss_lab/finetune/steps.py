"""One update: the gradient of a batch, a few rows at a time, and a step of AdamW.

Each piece of the batch is computed by one worker, and the gradients are summed in order, so the
number of workers changes nothing.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, cast

import torch
from oss_kernels.backends import load_backend
from torch import Tensor, nn

from oss_lab.finetune.adapted import AdaptedTransformer
from oss_lab.finetune.examples import Example
from oss_lab.finetune.lora import Lora
from oss_lab.finetune.loss import sum_nats
from oss_lab.finetune.packing import PackedRows, collate
from oss_lab.finetune.recipe import Recipe
from oss_lab.model import Transformer

Rows = Sequence[Sequence[Example]]
"""Packed rows; each is a list of examples."""


class Trainee:
    """What is trained: low-rank parts on a frozen model, and their optimizer.

    Attributes:
        body: the adapted model without its unembedding; it returns the normed residual stream.
    """

    def __init__(self, model: Transformer, lora: Lora, recipe: Recipe) -> None:
        self.lora, self.recipe = lora.to(model.device), recipe
        self.unembedding = model.unembedding
        kernels = None if recipe.kernels == "reference" else load_backend(recipe.kernels)
        self.body = AdaptedTransformer(
            model, self.lora, recompute=recipe.recompute, kernels=kernels
        )
        self.body.unembedding = cast(Any, nn.Identity())
        self.parameters = list(self.lora.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, weight_decay=recipe.weight_decay, fused=True
        )


@dataclass(frozen=True)
class Update:
    """What one update measured.

    Attributes:
        loss: nats per learned token, before the update.
        tokens: all tokens that were read, without padding.
        gradient_norm: before clipping.
    """

    loss: float
    learned: int
    tokens: int
    gradient_norm: float


def update(trainee: Trainee, rows: Rows, rate: float, workers: Executor) -> Update:
    """Do one update from these rows; every learned token has the same weight."""
    examples = [example for row in rows for example in row]
    learned = sum(sum(example.learned[1:]) for example in examples)
    size = trainee.recipe.rows
    pieces = [rows[n : n + size] for n in range(0, len(rows), size)]
    total = 0.0
    for parameter in trainee.parameters:
        parameter.grad = None
    for nats, gradients in workers.map(lambda piece: differentiate(trainee, piece), pieces):
        total += nats
        for parameter, gradient in zip(trainee.parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    # In a worker, because a sum depends on the number of its threads.
    norm = workers.submit(apply_gradients, trainee, learned, rate).result()
    tokens = sum(len(example.tokens) - 1 for example in examples)
    return Update(total / learned, learned, tokens, norm)


def differentiate(trainee: Trainee, rows: Rows) -> tuple[float, Sequence[Tensor]]:
    """The summed loss of these rows in nats, and its gradient for every parameter."""
    batch = collate(rows).to(trainee.unembedding.weight.device)
    hidden = trainee.body(batch.inputs, PackedRows(batch))
    nats = sum_nats(hidden, trainee.unembedding, batch.targets, batch.weights)
    return nats.item(), torch.autograd.grad(nats, trainee.parameters)


def apply_gradients(trainee: Trainee, learned: int, rate: float) -> float:
    """One step of AdamW with the mean gradient, clipped; returns its norm before that."""
    for parameter in trainee.parameters:
        assert parameter.grad is not None
        parameter.grad /= learned
    norm = nn.utils.clip_grad_norm_(trainee.parameters, trainee.recipe.clip).item()
    for group in trainee.optimizer.param_groups:
        group["lr"] = rate
    trainee.optimizer.step()
    return norm
