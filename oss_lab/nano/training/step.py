"""One training step: gradients of its groups in parallel, and one update from their sum."""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oss_lab.engine.cache import KVCache
from oss_lab.model import Transformer
from oss_lab.nano.training.balance import DECAY, RouterRecorder, busiest_load
from oss_lab.nano.training.data import RowGroup

CLIP = 1.0  # the largest gradient norm of an update


@dataclass(frozen=True)
class GroupGradients:
    """One group's contribution to a step: summed loss in nats, its tokens, and the gradients."""

    nats: float
    tokens: int
    balance: float
    chosen: Float[Tensor, "layer expert"]
    gradients: Sequence[Tensor | None]


def train_step(
    model: Transformer,
    optimizers: Sequence[torch.optim.Optimizer],
    groups: list[RowGroup],
    share: Float[Tensor, "layer expert"],
    balance_weight: float,
    workers: Executor,
) -> dict[str, Any]:
    """Do one update from all groups; returns the fields of `TrainingStep` that it determines.

    Groups are processed in parallel, one thread each. Their gradients are summed in a fixed order,
    so the result does not depend on the number of threads. `share` is updated in place.
    """
    learned = sum(int(group.learned.sum()) for group in groups)
    weight = balance_weight / len(groups)
    results = list(
        workers.map(
            lambda group: compute_gradients(model, group, share, 1 / learned, weight), groups
        )
    )
    for parameter, *gradients in zip(
        model.parameters(), *(result.gradients for result in results), strict=True
    ):
        given = [gradient for gradient in gradients if gradient is not None]
        parameter.grad = functools.reduce(torch.add, given) if given else None
    share.mul_(DECAY).add_((1 - DECAY) * torch.stack([each.chosen for each in results]).mean(0))
    # In a worker, which has one thread: with several, the sum would depend on their number.
    norm = workers.submit(nn.utils.clip_grad_norm_, model.parameters(), CLIP).result().item()
    list(workers.map(lambda optimizer: optimizer.step(), optimizers))
    return {
        "loss": sum(each.nats for each in results) / learned,
        "balance": round(sum(each.balance for each in results) / len(results), 4),
        "load": round(busiest_load(share), 3),
        "learnt_tokens": learned,
        "gradient_norm": round(norm, 4),
        "groups": average_losses(groups, results),
    }


def average_losses(
    groups: Sequence[RowGroup], results: Sequence[GroupGradients]
) -> dict[str, float]:
    """Loss in nats per learned token, by `setting/task/effort`."""
    nats, tokens = defaultdict[str, float](float), Counter[str]()
    for group, result in zip(groups, results, strict=True):
        name = f"{group.setting}/{group.task}/{group.effort}"
        nats[name] += result.nats
        tokens[name] += result.tokens
    return {name: round(nats[name] / tokens[name], 4) for name in nats}


def compute_gradients(
    model: Transformer,
    group: RowGroup,
    share: Float[Tensor, "layer expert"],
    nats_weight: float,
    balance_weight: float,
) -> GroupGradients:
    """Compute the gradients of one group; its opening is read once for all rows."""
    opening, inputs, targets, learned, lengths = (
        tensor.to(model.device)
        for tensor in (group.opening, group.inputs, group.targets, group.learned, group.lengths)
    )
    watch = RouterRecorder(model.config.num_hidden_layers)
    cache = KVCache(model.config)
    model(opening, cache, last=0, hooks=watch)
    logits = model(inputs, cache.fork(batch=len(inputs)), hooks=watch)
    nats = F.cross_entropy(logits[learned].float(), targets[learned], reduction="sum")
    written = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
    balance, chosen = watch.compute_loss(
        [torch.ones_like(opening, dtype=torch.bool), written], share
    )
    loss = nats_weight * nats + balance_weight * balance
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return GroupGradients(nats.item(), int(group.learned.sum()), balance.item(), chosen, gradients)
